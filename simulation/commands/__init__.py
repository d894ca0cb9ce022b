"""Command groups of the `fedqana` command that run sites on this machine."""
