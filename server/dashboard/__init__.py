"""A read-only view of the coordinator's server in a browser, on loopback."""
