"""Alembic's entry: it always runs on the connection that `upgrade` opened."""

from __future__ import annotations

from alembic import context

from pipeline.migrations.declared import metadata

given = context.config.attributes
context.configure(
    connection=given["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    on_version_apply=given["applied"],
)
with context.begin_transaction():
    context.run_migrations()
