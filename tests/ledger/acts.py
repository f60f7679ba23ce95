"""What tests do to a ledger and read of it: steps opened and closed, revocations, two transactions at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Row, event, select, text, update

from identity.audit.tables import audit
from identity.keys.signing import Signer
from identity.model import Scope
from identity.sql.store import Store
from pipeline.duties import reconcile
from pipeline.jobs.intents import Intent, OpenOutcome
from pipeline.revocation import declaration
from pipeline.states import AttemptState, StepState
from pipeline.steps import openings
from pipeline.steps.closings import Closing, close_attempt
from pipeline.tables import attempts, steps
from pipeline.tables import jobs as jobs_table
from tests.ledger.house import House

T = TypeVar("T")

AWAITED = text("select count(*) from pg_locks where locktype in ('transactionid', 'advisory') and not granted")
SIGNER = Signer.from_seed(b"s" * 32)


def until_awaited(store: Store, write: Callable[[Connection], T], *, by: threading.Thread) -> T:
    """What *write* comes to in a transaction that is open until another, which *by* makes, waits for it or ends.

    For PostgreSQL: SQLite has one writer anyway.
    """

    def slowly(c: Connection) -> T:
        outcome = write(c)
        by.start()
        while by.is_alive() and not c.execute(AWAITED).scalar_one():
            by.join(0.01)
        return outcome

    outcome = store.write(slowly)
    by.join()
    return outcome


@contextmanager
def listening(engine: Engine, name: str, fn: Callable[..., Any]) -> Iterator[None]:
    """Have *fn* hear an event of *engine*, which other tests have after this one."""
    event.listen(engine, name, fn)
    try:
        yield
    finally:
        event.remove(engine, name, fn)


def open_(house: House, asked: Intent) -> OpenOutcome:
    return house.database.write(partial(openings.open_attempt, intent=asked))


def close(house: House, asked: Intent, state: AttemptState, step_state: StepState, **more: Any) -> bool:
    """Whether it is an effect that had been ruled out."""
    closing = Closing(attempt=asked.attempt, state=state, step_state=step_state, **more)
    return house.database.write(partial(close_attempt, intent=asked, closing=closing)).duplicate


def done(house: House, asked: Intent, result: Mapping[str, Any] | None = None) -> bool:
    return close(house, asked, AttemptState.EFFECT, StepState.DONE, result=result or {"id": "1"}, external_id="1")


def settle(house: House, asked: Intent) -> None:
    """Its worker is gone, and its deadline passes."""
    past = update(attempts).where(attempts.c.id == asked.attempt)
    past = past.values(settled_by=datetime.now(UTC) - timedelta(seconds=1))
    house.database.write(lambda c: c.execute(past).rowcount)
    reconcile.settle_attempts(house.database)


def revoke(house: House, scope: Scope) -> str:
    made = house.ids("rev")
    declare = partial(
        declaration.declare,
        scope=scope,
        cause=declaration.Cause(source="test", by="test", reason="test"),
        id=made,
        tenant="acme",
        now=datetime.now(UTC),
    )
    house.database.write(declare)
    return made


def attempt_states(house: House) -> list[str]:
    return list(
        house.database.read(lambda c: c.execute(select(attempts.c.state).order_by(attempts.c.opened)).scalars())
    )


def step_state(house: House, step: str) -> str:
    which = select(steps.c.state).where(steps.c.id == step)
    return str(house.database.read(lambda c: c.execute(which).scalar_one()))


def audit_kinds(house: House) -> list[str]:
    return list(house.database.read(lambda c: c.execute(select(audit.c.kind).order_by(audit.c.number)).scalars()))


def receipt_of(house: House, made: str) -> dict[str, Any]:
    row = house.database.read(partial(declaration.load, revocation=made))
    assert SIGNER.verifies(row.receipt, row.signature)
    receipt: dict[str, Any] = row.receipt
    return receipt


def lapse(house: House, job: str) -> None:
    past = update(jobs_table).where(jobs_table.c.id == job).values(claimed_until=jobs_table.c.created_at)
    house.database.write(lambda c: c.execute(past).rowcount)


def attempts_of(house: House) -> list[Row[Any]]:
    return list(house.database.read(lambda c: c.execute(select(attempts).order_by(attempts.c.opened)).all()))


def steps_of(house: House) -> list[Row[Any]]:
    return list(house.database.read(lambda c: c.execute(select(steps).order_by(steps.c.position)).all()))
