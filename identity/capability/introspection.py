"""Introspection (RFC 7662) by the service a token is for: each call is a spend.

Other services learn nothing. The audience learns why a token is inactive, although §2.2 advises against it: it holds
the token, and its own verifier would tell it as much.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, select

from identity import audit
from identity.audit import AsWhom, Work
from identity.audit.tables import audit as audit_rows
from identity.capability.issuer import Issuer, claims_of
from identity.capability.model import Audience, Issued
from identity.capability.spending import NotSpent, Spent, Unspendable, Why, spend
from identity.capability.tables import capabilities
from identity.capability.verifier import Capability, Reason, Refused
from identity.metrics import CAPABILITY_SPENDS
from identity.model import AccessPattern
from identity.secret import Secret
from identity.sql.store import Store, write_idempotent

_INACTIVE: Mapping[str, Any] = {"active": False}


@dataclass(frozen=True, kw_only=True)
class Introspection:
    """Answers audiences about tokens."""

    store: Store
    issuer: Issuer
    ids: Callable[[str], str]
    clock: Callable[[], datetime]

    def answer(self, token: Secret, by: Audience, *, request_sha256: str | None) -> Mapping[str, Any]:
        """Return the document of RFC 7662 §2.2. Raises Unavailable.

        *request_sha256* is the `request_hash` of the request that carried the token, as the audience received it.
        """
        try:
            claimed = self.issuer.verifier(by.uri).verify(token.reveal(), now=self.clock(), request_sha256=None)
        except Refused as refused:
            CAPABILITY_SPENDS.labels("unverified").inc()
            return _refusal(refused.reason)
        match self._spend(claimed, by, request_sha256):
            case NotSpent(why=why):
                CAPABILITY_SPENDS.labels("refused").inc()
                return _refusal(why)
            case Spent(capability=capability, first=first):
                CAPABILITY_SPENDS.labels("first" if first else "again").inc()
                claims = claims_of(capability, issuer=self.issuer.url)
                return {"active": True, "spend": "first" if first else "again", **claims}

    def _spend(self, claimed: Capability, by: Audience, request_sha256: str | None) -> Spent | NotSpent:
        write = partial(
            _spend_and_record,
            claimed=claimed,
            by=by,
            request_sha256=request_sha256,
            id=self.ids("spd"),
            now=self.clock(),
        )
        # After a lost commit, the retry is either the same spend again or the first.
        return write_idempotent(self.store, write)


def _refusal(why: Why) -> Mapping[str, Any]:
    """Return the inactive document; without a reason if the token is for another audience."""
    return _INACTIVE if why is Reason.AUDIENCE else {**_INACTIVE, "reason": str(why)}


def _spend_and_record(
    connection: Connection, claimed: Capability, by: Audience, request_sha256: str | None, id: str, now: datetime
) -> Spent | NotSpent:
    outcome = spend(connection, claimed, by, request_sha256=request_sha256)
    match outcome:
        case Spent(first=False) | NotSpent(record=None):
            return outcome  # the first spend is on record; an unknown token has no tenant to record
        case Spent(capability=capability, agent=agent):
            kind, said = "capability.spent", "spent"
        case NotSpent(why=why, record=Issued(capability=capability, agent=agent)):
            before = _recorded(connection, claimed, (id, refusal := f"{id}.refused"))
            if why is Unspendable.SPENT and id in before:
                return Spent(capability=capability, agent=agent, first=True)  # by this call, its commit lost
            if refusal in before:
                return outcome
            kind, said, id = "capability.refused", str(why), refusal
    audit.record(
        connection,
        kind,
        AsWhom(
            tenant=capability.tenant,
            agent=agent,
            principal=capability.subject,
            pattern=AccessPattern.CAPABILITY,
        ),
        Work(job=capability.job, step=capability.step, action=capability.action),
        id=id,
        at=now,
        outcome=said,
        reason=f"asked by {by.id}",
        detail={"capability": capability.id, "resource": capability.resource},
    )
    return outcome


def _recorded(connection: Connection, claimed: Capability, ids: Collection[str]) -> Collection[str]:
    """Return which of these audit rows an earlier run of this call has committed."""
    # A separate statement, which waits for a commit in progress.
    connection.execute(select(capabilities.c.jti).where(capabilities.c.jti == claimed.id).with_for_update())
    return connection.execute(select(audit_rows.c.id).where(audit_rows.c.id.in_(ids))).scalars().all()
