"""Alembic's entry: it always runs on the connection that `upgrade` opened."""

from __future__ import annotations

from alembic import context

from pipeline import tables

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=tables.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
