"""The coordinator: rounds, strategies, history and model versions."""
