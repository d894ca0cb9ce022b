"""Measurements behind docs/conversion.md and docs/on-chip-learning.md, each a `fedqana bench`."""
