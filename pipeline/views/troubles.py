"""Everything in the ledger that is stuck without a person: read by the gauges and `aswhom doctor`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import BigInteger, Connection, Select, func, select, type_coerce

from identity.audit.sealer import oldest_unsealed
from identity.hold import Hold, find_hold
from identity.sql.columns import is_one
from identity.transmitters import silent_streams
from pipeline.ledger.clock import NOW, ledger_now
from pipeline.ledger.indexed import OF_UNKNOWN_OUTCOME, REPLAYABLE, UNANSWERED
from pipeline.revocation.declaration import Stage
from pipeline.revocation.tables import revocations, signal_chunks
from pipeline.tables import attempts, deliveries, jobs
from pipeline.views import operator_queries, queues


@dataclass(frozen=True, kw_only=True)
class Troubles:
    """The troubles at one moment."""

    due: Mapping[str, int]  # jobs a worker may claim, by pattern
    due_for: Mapping[str, timedelta]  # age of the oldest of them
    waiting: Mapping[str, int]  # by kind of wait
    dead_by: Mapping[str, int]  # by pattern; those that can still be replayed
    unknown: int  # calls of unknown outcome
    unanswered: int  # those of them that only a person can settle
    unsealed: timedelta  # age of the oldest audit record without a seal
    paused: Mapping[str, int]  # provider connections that fetch no tokens until an operator acts, by provider
    revoking: timedelta  # age of the oldest revocation that is not quiesced
    unreached: timedelta  # age of the oldest delivery whose signal has accounts left to reach
    silent: Mapping[str, int]  # streams of security events that are not enabled, by status
    hold: Hold | None  # while it stands nothing is sent

    @property
    def dead(self) -> int:
        return sum(self.dead_by.values())


def look(connection: Connection) -> Troubles:
    """Read them, by indexes over unfinished and dead rows."""
    now = ledger_now(connection)
    due = queues.due(connection)
    dead = select(jobs.c.pattern, func.count()).where(REPLAYABLE).group_by(jobs.c.pattern)
    unknown = select(func.count()).select_from(attempts).where(OF_UNKNOWN_OUTCOME)
    unsealed = oldest_unsealed(connection)
    return Troubles(
        due={pattern: number for pattern, (number, _) in due.items()},
        due_for={pattern: max(now - oldest, timedelta()) for pattern, (_, oldest) in due.items()},
        waiting=queues.waiting(connection)[None],
        dead_by=_counted(connection, dead),
        unknown=connection.execute(unknown).scalar_one(),
        unanswered=connection.execute(select(func.count()).select_from(UNANSWERED.subquery())).scalar_one(),
        unsealed=timedelta() if unsealed is None else max(now - unsealed, timedelta()),
        paused=Counter(row["provider"] for row in operator_queries.paused_connections(connection)),
        revoking=_revoking(connection),
        unreached=_unreached(connection),
        silent=Counter(one.status for one in silent_streams(connection)),
        hold=find_hold(connection),
    )


def most_due(connection: Connection, pattern: str) -> tuple[str, int] | None:
    """Return the tenant with the most due jobs of a pattern, and how many."""
    number = func.count()
    of_tenant = (
        select(jobs.c.tenant_id, number).where(queues.IS_DUE, jobs.c.pattern == pattern).group_by(jobs.c.tenant_id)
    )
    found = connection.execute(of_tenant.order_by(number.desc(), jobs.c.tenant_id).limit(1)).first()
    return None if found is None else (found[0], found[1])


def _revoking(connection: Connection) -> timedelta:
    """Return the greatest age. For the earliest date, a database would scan all revocations in that order."""
    age = type_coerce(NOW, BigInteger) - type_coerce(revocations.c.effective_at, BigInteger)
    oldest = select(func.max(age)).where(~is_one(revocations.c.state, Stage.QUIESCED))
    return timedelta(microseconds=max(connection.execute(oldest).scalar_one() or 0, 0))


def _unreached(connection: Connection) -> timedelta:
    """Return the greatest age. Each delivery has one row at place 0, and all are deleted with the last account."""
    age = type_coerce(NOW, BigInteger) - type_coerce(deliveries.c.received_at, BigInteger)
    oldest = select(func.max(age)).join_from(signal_chunks, deliveries).where(signal_chunks.c.place == 0)
    return timedelta(microseconds=max(connection.execute(oldest).scalar_one() or 0, 0))


def _counted(connection: Connection, statement: Select[str, int]) -> dict[str, int]:
    return {str(key): number for key, number in connection.execute(statement)}
