"""What in the ledger does not move without somebody: read by the gauges and by `aswhom doctor`."""

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
from pipeline.ledger import operator_queries, queues
from pipeline.ledger.clock import NOW, ledger_now
from pipeline.ledger.indexed import OF_UNKNOWN_OUTCOME, REPLAYABLE, UNANSWERED
from pipeline.revocation import Stage
from pipeline.revocation.tables import revocations
from pipeline.tables import attempts, jobs


@dataclass(frozen=True, kw_only=True)
class Troubles:
    """At one moment."""

    due: Mapping[str, int]  # jobs a worker may claim, by pattern
    due_for: Mapping[str, timedelta]  # since when the oldest of them is
    waiting: Mapping[str, int]  # by what for
    dead_by: Mapping[str, int]  # by pattern; those that can still be replayed
    unknown: int  # calls whose outcome nobody knows
    unanswered: int  # those among them that only a person's word settles
    unsealed: timedelta  # since when the oldest audit record without a seal is there
    paused: Mapping[str, int]  # provider connections that fetch no tokens until an operator acts, by provider
    revoking: timedelta  # since when the oldest revocation that is not quiesced is effective
    silent: Mapping[str, int]  # streams of security events that are not enabled, by status
    hold: Hold | None  # while it stands nothing goes out

    @property
    def dead(self) -> int:
        return sum(self.dead_by.values())


def look(connection: Connection) -> Troubles:
    """Read them, by indexes over what is unfinished or dead."""
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
        silent=Counter(one.status for one in silent_streams(connection)),
        hold=find_hold(connection),
    )


def most_due(connection: Connection, pattern: str) -> tuple[str, int] | None:
    """Of the jobs of a pattern that are due: the tenant with most of them, and how many."""
    number = func.count()
    of_tenant = (
        select(jobs.c.tenant_id, number).where(queues.IS_DUE, jobs.c.pattern == pattern).group_by(jobs.c.tenant_id)
    )
    found = connection.execute(of_tenant.order_by(number.desc(), jobs.c.tenant_id).limit(1)).first()
    return None if found is None else (found[0], found[1])


def _revoking(connection: Connection) -> timedelta:
    """The greatest age. Asked for the least date, a database looks through all there ever were, in that order."""
    age = type_coerce(NOW, BigInteger) - type_coerce(revocations.c.effective_at, BigInteger)
    oldest = select(func.max(age)).where(~is_one(revocations.c.state, Stage.QUIESCED))
    return timedelta(microseconds=max(connection.execute(oldest).scalar_one() or 0, 0))


def _counted(connection: Connection, statement: Select[str, int]) -> dict[str, int]:
    return {str(key): number for key, number in connection.execute(statement)}
