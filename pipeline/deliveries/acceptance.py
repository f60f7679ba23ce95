"""Accept a verified delivery and the jobs it starts, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from hashlib import sha256

from sqlalchemy import Connection, bindparam, update

from identity.connections.installations import note_organization
from identity.sql.prepared import Prepared
from identity.sql.rows import insert_for
from pipeline.approvals import signed_answers
from pipeline.authoring.matching import Considered, Match
from pipeline.deliveries import duplicates
from pipeline.deliveries.plan import Start, plan
from pipeline.deliveries.redeliveries import was_asked
from pipeline.deliveries.tenant import DeliveryTenant, record_trespass, whose_delivery
from pipeline.jobs.bells import first_bells
from pipeline.jobs.new_jobs import NewJob, insert_job
from pipeline.jobs.tenant_setup import TenantSetup, setup_for
from pipeline.model import Acceptance, Bell, DeliveryOutcome, LeftOut, SignedDelivery
from pipeline.revocation import signal_chunks, signals
from pipeline.revocation.reaction import ReceivedSignal
from pipeline.signal import Asks, Signal
from pipeline.tables import deliveries

# Prepared once, because building the statement takes longer than running it.
_CONCLUDE = Prepared(update(deliveries).where(deliveries.c.id == bindparam("delivery")))


@dataclass(frozen=True, kw_only=True)
class NewIds:
    """Identifiers generated before the transaction, which may run more than once."""

    delivery: str
    jobs: tuple[str, ...]
    revocation: str


def accept(
    connection: Connection,
    delivery: SignedDelivery,
    matches: Sequence[Match],
    *,
    misfits: Sequence[Considered] = (),
    ids: NewIds,
    outcome: DeliveryOutcome,
    reason: str,
    now: datetime,
) -> Acceptance:
    """Record a delivery and the jobs, signal or answer that follow from it.

    If *matches* is empty, *outcome* and *reason* say why no job starts. *misfits*: the workflows that could not read
    it; those that count are enabled for its tenant. A repeated delivery changes nothing; a revocation signal is never
    treated as a duplicate because of its body.
    """
    digest = sha256(delivery.body).hexdigest()
    whose = _whose(connection, delivery)
    here = None
    if whose.tenant is not None and (matches or misfits):
        also = [one.workflow for one in misfits]
        here = setup_for(connection, whose.tenant, delivery.connection, matches, also=also)
    planned = plan(delivery, whose, here, matches, misfits, ids.jobs, idle=(outcome, reason))
    row = {
        "id": ids.delivery,
        "source": delivery.source,
        "connection_id": delivery.connection,
        "tenant_id": whose.tenant or whose.shown_to,
        "delivery_id": delivery.delivery_id,
        "body_sha256": digest,
        "event": delivery.event,
        "outcome": planned.outcome,
        "reason": planned.reason,
        "left_out": planned.left_out,
        "body": delivery.body,
        "received_at": now,
    }
    if _insert_delivery(connection.dialect.name).run(connection, row).rowcount == 0:
        return duplicates.same_id(connection, delivery)
    by_body = delivery.dedupe_by_body and delivery.signal is None
    if by_body and not duplicates.remember_body(connection, delivery, ids.delivery, digest, now):
        return duplicates.same_body(connection, delivery, ids.delivery, digest)

    if whose.trespassed is not None:
        record_trespass(connection, delivery, whose, id=ids.delivery, now=now)
    if whose.by_workspace and delivery.workspace is not None and delivery.installation is not None:
        place = {"workspace": delivery.workspace, "organization": delivery.installation}
        note_organization(connection, owner=delivery.connection, **place)
    if delivery.signal is not None:
        return _follow(connection, delivery, delivery.signal, ids, digest, now)
    if delivery.answer is not None and whose.tenant is not None:
        through, tenant = delivery.connection, whose.tenant
        counted = signed_answers.count(connection, tenant, delivery.answer, through=through, now=now)
        concluded = _conclude(connection, ids.delivery, counted.outcome, counted.reason)
        return replace(concluded, told=counted.told)
    accepted = Acceptance(
        delivery=ids.delivery,
        outcome=planned.outcome,
        reason=planned.reason,
        nobodys=whose.tenant is None,
        misread=planned.misread,
    )
    if here is None or not planned.starts:
        return accepted
    bells = _start(connection, here, delivery.connection, ids.delivery, planned.starts, now)
    users = [start.match.user for start in planned.starts if start.match.user is not None]
    unknown = any(here.principal(user) is None for user in users)
    return replace(accepted, jobs=tuple(start.job for start in planned.starts), bells=bells, unknown_user=unknown)


def _whose(connection: Connection, delivery: SignedDelivery) -> DeliveryTenant:
    """Return the tenant of a delivery; an approval answer belongs to the tenant whose app asked for it.

    In a channel shared by two companies, the payload names the workspace of the person who pressed the button. Only our
    own messages carry these buttons; the approval, the digest and the alias establish the rest.
    """
    whose = whose_delivery(connection, delivery.connection, delivery.installation, delivery.workspace)
    if delivery.answer is not None and whose.shown_to is not None:
        return DeliveryTenant(tenant=whose.shown_to)
    return whose


def _follow(
    connection: Connection, delivery: SignedDelivery, signal: Signal, ids: NewIds, digest: str, now: datetime
) -> Acceptance:
    # Remembered separately from the deliveries, because a signal is never refused as a duplicate.
    first = duplicates.remember_body(connection, delivery, ids.delivery, digest, now)
    # A revocation without a time that we asked to have redelivered may be days old. Signals that report a state are
    # always followed.
    timeless = signal.asks is Asks.REVOKE and signal.happened_at is None
    late = timeless and was_asked(connection, delivery.connection, delivery.delivery_id)
    received = ReceivedSignal(
        signal=signal,
        id=ids.revocation,
        by=signals.BY_PROVIDER + delivery.source,
        signal_id=ids.delivery,
        seen=late or not first,
        now=now,
    )
    followed = signals.follow(connection, delivery.connection, received, at_most=signal_chunks.ACCOUNTS)
    signal_chunks.leave(connection, received, followed)
    unreached = LeftOut.UNREACHED if followed.nobodys else None
    concluded = _conclude(connection, ids.delivery, DeliveryOutcome.SIGNAL, followed.reason, left_out=unreached)
    return replace(
        concluded,
        revocations=followed.revocations,
        nobodys=followed.nobodys,
        strangers=followed.strangers,
        unfollowed=bool(followed.left),
    )


def _start(
    connection: Connection, here: TenantSetup, through: str, delivery: str, starts: Sequence[Start], now: datetime
) -> tuple[Bell, ...]:
    """Accept the jobs of a new delivery. Return their bells, and the bells due next for jobs that got none."""
    rung = start_jobs(connection, here, through, delivery, starts, now=now, ring=True)
    with_bell = {bell.job for bell in rung}
    without = (start.match.workflow for start in starts if start.job not in with_bell)
    return (*rung, *first_bells(connection, here.tenant, without))


def start_jobs(
    connection: Connection,
    here: TenantSetup,
    through: str,
    delivery: str,
    starts: Iterable[Start],
    *,
    now: datetime,
    ring: bool = False,
) -> tuple[Bell, ...]:
    """Accept the jobs that a delivery starts. With *ring*, return the bells that `insert_job` grants."""
    rung = []
    for start in starts:
        new = NewJob(
            id=start.job,
            tenant=here.tenant,
            workflow=start.match.workflow,
            user=here.principal(start.match.user),
            triggered_by=start.match.triggered_by,
            event=start.match.document,
            config=start.config,
            delivery=delivery,
            source_connection=through,
            replayed_by=start.replayed_by,
        )
        rung.append(insert_job(connection, new, now=now, here=here, ring=ring))
    return tuple(bell for bell in rung if bell is not None)


@cache
def _insert_delivery(dialect: str) -> Prepared:
    statement = insert_for(dialect, deliveries)
    return Prepared(statement.on_conflict_do_nothing(index_elements=["connection_id", "delivery_id"]))


def _conclude(
    connection: Connection, delivery: str, outcome: DeliveryOutcome, reason: str, *, left_out: LeftOut | None = None
) -> Acceptance:
    _CONCLUDE.run(connection, {"delivery": delivery, "outcome": outcome, "reason": reason, "left_out": left_out})
    return Acceptance(delivery=delivery, outcome=outcome, reason=reason)
