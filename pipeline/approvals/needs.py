"""The quorums a step needs: the policy's names resolved to people, and the answers that meet them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, or_, select

from identity.model import PrincipalKind
from identity.policy.rules import ApprovalNeed
from identity.tables import principals
from pipeline.approvals.requesters import unheld_key
from pipeline.jobs.intents import Intent


def resolved(connection: Connection, tenant: str, need: ApprovalNeed) -> dict[str, Any]:
    """Resolve a need's approvers to present users: ids take precedence, so that no name shadows an id."""
    people = select(principals.c.id, principals.c.name).where(
        principals.c.tenant_id == tenant,
        principals.c.kind == PrincipalKind.USER,
        or_(principals.c.id.in_(need.approvers), principals.c.name.in_(need.approvers)),
    )
    rows = connection.execute(people).all()
    ids = {row.id for row in rows}
    named = {row.id for row in rows if row.id in need.approvers or row.name not in ids}
    return {"rule": need.rule, "quorum": need.quorum, "approvers": sorted(named)}


def by_name(connection: Connection, needs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the needs as approvers are shown them: with people's names instead of their ids."""
    ids = {one for need in needs for one in need["approvers"]}
    found = select(principals.c.id, principals.c.name).where(principals.c.id.in_(ids))
    names = {row.id: row.name for row in connection.execute(found)}
    return [{**need, "approvers": [names[one] for one in need["approvers"]]} for need in needs]


def is_met(needs: Iterable[Mapping[str, Any]], yes: Iterable[str]) -> bool:
    """True if every need has its quorum."""
    said = set(yes)
    return all(len(said & set(need["approvers"])) >= need["quorum"] for need in needs)


def unheld(connection: Connection, intent: Intent) -> str | None:
    """Return why the step is refused regardless of answers: a rule requires a stated holder of the key that asked."""
    wary = next((one for one in intent.decision.constraints.approvals if one.held_keys_only), None)
    key = None if wary is None else unheld_key(connection, intent.job.id)
    if wary is None or key is None:
        return None
    return (
        f"the policy's rule {wary.rule!r} approves {intent.action} only for keys that a user is said to hold, and "
        f"{key} names none: whoever has it could approve what they asked for. "
        "Make one with `aswhom api-keys add --held-by`"
    )
