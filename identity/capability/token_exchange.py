"""Token exchange (RFC 8693): a service passes its capability on to another service, narrowed, as itself.

Only the audience of a token may exchange it, once, and only for audiences to which it is registered to pass tokens. The
subject stays the principal who asked; the service becomes the actor in front of the agent (§4.1).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import sha256

from sqlalchemy import Connection, bindparam, update

from identity import audit
from identity.audit import AsWhom, Work
from identity.capability import audiences, issued
from identity.capability.issuer import Issuer
from identity.capability.model import Audience, Issued
from identity.capability.narrowing import Narrower, TooWide, narrow
from identity.capability.spending import NotSpent, Unspendable, Why, examine
from identity.capability.tables import capabilities
from identity.capability.verifier import Capability, Reason, Refused
from identity.metrics import CAPABILITIES_ISSUED
from identity.model import AccessPattern
from identity.secret import Secret
from identity.sql.columns import database_now
from identity.sql.prepared import Prepared
from identity.sql.store import Store, write_idempotent

_EXCHANGE = Prepared(
    update(capabilities)
    .where(
        capabilities.c.jti == bindparam("id"),
        capabilities.c.closed_at.is_(None),
        capabilities.c.exchanged_sha256.is_(None),
        capabilities.c.expires_at > database_now(),
    )
    .values(exchanged_sha256=bindparam("for_what"))
)


@dataclass(frozen=True, kw_only=True)
class Exchanged:
    """The new token and its content."""

    token: Secret
    capability: Capability


@dataclass(frozen=True, kw_only=True)
class NotExchanged:
    """A refused exchange: the token does not count, or the request exceeds it."""

    why: Why | TooWide


@dataclass(frozen=True, kw_only=True)
class TokenExchange:
    """Exchanges tokens for audiences."""

    store: Store
    issuer: Issuer
    ids: Callable[[str], str]
    clock: Callable[[], datetime]

    def exchange(self, token: Secret, by: Audience, *, target: str, asked: Narrower) -> Exchanged | NotExchanged:
        """Return a narrower token for the audience with the URI *target*. Repeating an exchange returns the same token.

        Raises Unavailable.
        """
        try:
            claimed = self.issuer.verifier(by.uri).verify(token.reveal(), now=self.clock(), request_sha256=None)
        except Refused as refused:
            return NotExchanged(why=refused.reason)
        write = partial(
            pass_on, claimed=claimed, by=by, target=target, asked=asked, id=self.ids("cap"), now=self.clock()
        )
        outcome = write_idempotent(self.store, write)  # after a lost commit, the retry finds the earlier result
        if isinstance(outcome, NotExchanged):
            return outcome
        child, receiver = outcome
        CAPABILITIES_ISSUED.labels("exchange").inc()
        return Exchanged(token=self.issuer.sign(child, receiver.algorithm), capability=child)


def pass_on(
    connection: Connection, *, claimed: Capability, by: Audience, target: str, asked: Narrower, id: str, now: datetime
) -> tuple[Capability, Audience] | NotExchanged:
    examined = examine(connection, claimed, by)
    if isinstance(examined, NotSpent):
        return NotExchanged(why=examined.why)
    receiver = audiences.of_uri(connection, target)
    if receiver is None:
        return NotExchanged(why=TooWide.TARGET)
    child = narrow(examined.capability, asked, by=by, target=receiver, id=id, now=now)
    if isinstance(child, TooWide):
        return NotExchanged(why=child)
    for_what = _fingerprint(receiver, asked)
    if _EXCHANGE.run(connection, {"id": claimed.id, "for_what": for_what}).rowcount != 1:
        return _again(connection, claimed.id, for_what, receiver, now=now)
    issued.insert_capability(
        connection,
        child,
        audience=receiver.id,
        connection_id=examined.connection,
        agent=examined.agent,
        accepted=examined.accepted,
        parent=claimed.id,
    )
    _record(connection, child, examined, by, now=now)
    return child, receiver


def _again(
    connection: Connection, parent: str, for_what: str, receiver: Audience, *, now: datetime
) -> tuple[Capability, Audience] | NotExchanged:
    """Return the result of an earlier exchange if it was the same one and has not expired."""
    found = issued.find(connection, parent)
    child = issued.child_of(connection, parent)
    if found is None or found.closed_at is not None:
        return NotExchanged(why=Unspendable.CLOSED)
    if child is None or child.capability.expires_at <= now:
        return NotExchanged(why=Reason.EXPIRED)
    if found.exchanged_sha256 != for_what:
        return NotExchanged(why=Unspendable.SPENT)
    return child.capability, receiver


def _fingerprint(receiver: Audience, asked: Narrower) -> str:
    """Return a hash that identifies an exchange."""
    limit = asked.limit and [f"{asked.limit.amount:f}", asked.limit.currency]
    lifetime = asked.lifetime and asked.lifetime.total_seconds()
    document = [receiver.id, asked.action, asked.resource, limit, asked.request_sha256, lifetime]
    # Not `json_digest`: stored fingerprints were made with spaces.
    return sha256(json.dumps(document).encode()).hexdigest()


def _record(connection: Connection, child: Capability, parent: Issued, by: Audience, *, now: datetime) -> None:
    audit.record(
        connection,
        "capability.exchanged",
        AsWhom(tenant=child.tenant, agent=parent.agent, principal=child.subject, pattern=AccessPattern.CAPABILITY),
        Work(job=child.job, step=child.step, action=child.action),
        id=f"{child.id}.exchanged",
        at=now,
        outcome="issued",
        reason=f"asked by {by.id}",
        detail={
            "capability": child.id,
            "parent": parent.capability.id,
            "audience": child.audience,
            "resource": child.resource,
            "limit": {"amount": f"{child.limit.amount:f}", "currency": child.limit.currency} if child.limit else None,
            "actors": list(child.actors),
        },
    )
