"""Links of people to what a provider calls them: made by an admin, and taken back."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection

from identity.audit import Act
from identity.principals import link_alias
from pipeline.approvals.votes import Channel, Link
from pipeline.desk import tenants
from tests.ledger.house import House

SLACK: dict[str, Any] = {"channel": Channel.SLACK, "said_as": "slack:U1"}


def linked(house: House, who: str, provider: str, external_id: str) -> Link:
    """Somebody whom an admin has said to be *who*."""
    made = partial(
        link_alias,
        tenant="acme",
        provider=provider,
        external_id=external_id,
        principal=who,
        login=None,
        made_by="admin:test",
        now=datetime.now(UTC),
    )
    assert house.database.write(made)
    return Link(provider=provider, user=external_id)


def taken_back(c: Connection, *, provider: str, external_id: str, principal: str = "acme.bob") -> list[str]:
    of = {"tenant": "acme", "provider": provider, "external_id": external_id, "principal": principal}
    return tenants.remove_alias(c, Act(audit_id="aud-1", by="test", now=datetime.now(UTC)), **of)
