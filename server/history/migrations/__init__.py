"""The steps that bring a history database from one schema version to the next."""
