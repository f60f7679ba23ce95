"""Putting a policy into force: approvals requested under the previous one are requested again."""

from __future__ import annotations

from sqlalchemy import Connection

from identity.audit import Act
from identity.policy.ledger import Applied, apply_policy
from pipeline.approvals.requested import void_open


def put_in_force(connection: Connection, tenant: str, text: str, act: Act, *, over: int | None) -> Applied:
    """Apply a policy and void every open approval of the tenant: its people are asked under the new version."""
    applied = apply_policy(connection, tenant, text, act, over=over)
    if applied.changed:
        void_open(connection, tenant, reason=f"the tenant's policy is at version {applied.version} now", now=act.now)
    return applied
