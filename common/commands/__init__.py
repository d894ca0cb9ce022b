"""Command groups of the `fedqana` command that need only `common`."""
