"""Alembic's entry point: runs the migrations on the connection that `server.history.schema` gives.

There is no alembic.ini and no URL here; the caller holds the lock and the transaction.
"""

from alembic import context

from server.history.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=context.config.attributes["version_table"],
    # SQLite's DDL is transactional, but only where BEGIN was said, as the caller did.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
