"""The run history: one SQLAlchemy database behind plain functions.

`server.history.store.open_history` opens it; `server.history.records` holds the values that
come out. SQLAlchemy and Alembic are imported nowhere outside this package.
"""
