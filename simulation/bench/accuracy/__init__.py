"""The accuracy benchmark behind docs/benchmarks.md: one record a row and seed, then a table."""
