"""Alembic's entry: it always runs on the connection that `upgrade` opened."""

from __future__ import annotations

from alembic import context

import identity.api_key_tables
import identity.capability.tables
import identity.hold_tables
import identity.mint_tables  # noqa: F401 - adds its table to the metadata, as those beside it do
import pipeline.approvals.tables
import pipeline.revocation.tables
import pipeline.tables  # noqa: F401
from identity.tables import metadata

given = context.config.attributes
context.configure(
    connection=given["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    on_version_apply=given["applied"],
)
with context.begin_transaction():
    context.run_migrations()
