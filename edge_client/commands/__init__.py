"""Commands for the machine of one site."""
