"""Registers the sandbox's invoice service: its capabilities, the people who may request payments, and the limits."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection

from identity.audit import Act
from identity.capability.keys import NewKey
from identity.capability.model import Algorithm, Audience
from identity.policy.ledger import apply_policy
from identity.principals import link_alias
from identity.secret import Secret
from pipeline.desk.audiences import register
from pipeline.desk.workflows import enable
from pipeline.runtime import Runtime

INVOICES = "invoices"
WORKFLOW = "pay_invoice"
POLICY = """\
format = 1

[[allow]]
name = "invoices"
when = { action = "invoices.PayInvoice" }
limit = "50000 EUR"

[[rule]]
name = "a second person over 1,000"
when = { action = "invoices.PayInvoice" }
above = "1000 EUR"
approval = { approvers = ["ada", "grace"], expires_in = "24h" }
"""


def provide(
    runtime: Runtime, world: Mapping[str, Any], *, tenants: Mapping[str, tuple[str, ...]], now: datetime
) -> None:
    """Register everything payments need. *tenants* maps each tenant to the logins that may request payments."""
    service = world[INVOICES]
    audience = Audience(
        id=service["audience_id"],
        uri=service["audience"],
        tenant=None,
        connection=INVOICES,
        algorithm=Algorithm.ED25519,
        passes_to=(),
    )
    pair = NewKey.make(Algorithm.ED25519, runtime.vault)
    add = partial(
        register,
        new=audience,
        secret=Secret(service["audience_secret"]),
        pair=pair,
        act=_act(runtime, now),
        provider=INVOICES,
        api_url=service["url"],
    )
    runtime.database.write(add)
    declared = runtime.workflows.get(WORKFLOW)
    for tenant, logins in tenants.items():
        runtime.database.write(partial(_tenant, tenant=tenant, logins=logins, act=_act(runtime, now)))
        on = partial(enable, tenant=tenant, workflow=declared, act=_act(runtime, now), config={})
        runtime.database.write(on)


def _act(runtime: Runtime, now: datetime) -> Act:
    return Act(audit_id=runtime.ids("aud"), by="admin:demo", now=now)


def _tenant(connection: Connection, *, tenant: str, logins: tuple[str, ...], act: Act) -> None:
    for login in logins:
        link_alias(
            connection,
            tenant=tenant,
            provider="standard",
            external_id=login,
            principal=f"{tenant}.{login}",
            login=login,
            made_by=act.by,
            now=act.now,
        )
    apply_policy(connection, tenant, POLICY, act, over=None)
