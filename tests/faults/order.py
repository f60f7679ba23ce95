"""What the upstreams' logs say of a revoked credential, before its revocation and after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from identity.model import Scope, ScopeKind
from pipeline.revocation.declaration import under
from pipeline.tables import attempts, jobs
from tests.faults.books import log
from tests.faults.holders import holders, token_requests
from tests.system.rig import System


@dataclass(frozen=True, kw_only=True)
class Order:
    """How many requests were made with what was revoked: calls, and presentations to token endpoints."""

    before: int
    after: int  # on the receipt's in-flight list
    renewed_before: int
    renewed_after: int  # on the receipt, too


def prove_order(system: System, receipt: Mapping[str, Any], returned: datetime) -> Order:
    """Whose a request was is decided by its token and by whom the provider issued that to.

    Only whether an agent made it, the ledger knows alone, by the attempt that the log names: agents have no tokens of
    their own. For any receipt without a consent after it.
    """
    scope = Scope(kind=ScopeKind(receipt["scope"]["kind"]), key=receipt["scope"]["key"])
    listed = {call["attempt"] for call in receipt["in_flight"]}
    made = select(attempts.c.id).where(under(scope, attempts), attempts.c.opened < receipt["number"])
    recorded = {row.id for row in system.rows(made)}
    assert listed <= recorded
    # Also what was opened after it, against the rule: the log would name that.
    of_agent = select(attempts.c.id).join(jobs, jobs.c.id == attempts.c.job_id)
    of_agent = of_agent.where(under(scope, attempts), jobs.c.accepted < receipt["number"])
    by_agent = {row.id for row in system.rows(of_agent)}
    revoked = {token for token, holder in holders(system).items() if holder.is_under(scope)}
    before = after = 0
    for entry in log(system):
        if scope.kind is ScopeKind.AGENT:
            its = entry["attempt"] in by_agent
        else:
            its = entry["token_fingerprint"] in revoked and entry["revocation"] is None  # which would end it
        if its and datetime.fromisoformat(entry["at"]) <= returned:
            before += entry["attempt"] is not None
        elif its:
            after += 1
            assert entry["attempt"] in listed, f"sent after the revocation, and not on its receipt: {entry}"
    renewed = _renewed(system, scope, receipt, returned)
    return Order(before=before, after=after, renewed_before=renewed[0], renewed_after=renewed[1])


def _renewed(system: System, scope: Scope, receipt: Mapping[str, Any], returned: datetime) -> tuple[int, int]:
    """Nothing revoked is shown to a token endpoint after it, but by requests that are on its receipt."""
    listed = {one["id"] for one in receipt["token_requests"]}
    before = after = 0
    for one in token_requests(system):
        if not one.holder.is_under(scope) or one.entry["connect"] is not None:
            continue
        if datetime.fromisoformat(one.entry["at"]) <= returned:
            before += 1
            continue
        after += 1
        assert one.entry["refresh"] in listed, f"presented after the revocation, and not on its receipt: {one.entry}"
    return before, after
