"""Command groups of the `fedqana` command that read the coordinator's records."""
