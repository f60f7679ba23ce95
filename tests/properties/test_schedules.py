"""The real coordinator in thousands of schedules: processes die, stand still and overtake each other at every point.

One thread plays all processes. Wherever a refresh stands between two of its commits, on the wire too, the schedule may
let another process do anything before it goes on, kill it, or fail its next write. Clock, provider, lock and the
ledger's faults are the schedule's; everything else is the code of production, on SQLite.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Connection, Engine, StaticPool, create_engine, insert, select

from identity.coordinator import Coordinator, RefreshBudget
from identity.errors import AswhomError, Unavailable
from identity.gate import Gate
from identity.grants import ACCESS, Consented
from identity.leases import open_token
from identity.lock import Busy, Held, Unreachable
from identity.model import AccountState, Leased, Scope, ScopeKind
from identity.providers import PROFILES
from identity.scopes import grant_scopes, standings
from identity.store import CommitUnknown
from identity.tables import accounts, audit, ledger_numbers, metadata, refresh_intents
from tests.identity.stores import EngineStore
from tests.identity.world import ANNA, World
from tests.properties.provider import Fate, Wire

T = TypeVar("T")
BUDGET = RefreshBudget(wait=timedelta(seconds=50))
SCOPES = (*grant_scopes(ANNA), Scope(kind=ScopeKind.AGENT, key="bot"))
PROCESSES, DEEPEST = 3, 2


class Killed(BaseException):
    """kill -9 of one process."""


class Shelf:
    """The refresh lock of all processes, in the schedule's hands. `identity.lock.RefreshLock` for a coordinator."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.away = False
        self.owner: tuple[str, Any] | None = None  # its name, and until when

    def acquire(self, account: str) -> Held | Busy | Unreachable:
        if self.away:
            return Unreachable()
        if self.owner is not None and self.owner[1] > self.world.clock.now:
            return Busy()
        name = self.world.id()
        self.owner = (name, self.world.clock.now + BUDGET.lock_ttl)
        return Shelved(self, name)  # type: ignore[return-value]  # what the coordinator asks of a held lock

    def wait(self, account: str, *, within: timedelta) -> None:
        self.world.clock.advance(min(within, timedelta(seconds=10)))  # nobody releases while we stand here


class Shelved:
    """A lock that was taken."""

    def __init__(self, shelf: Shelf, name: str) -> None:
        self.shelf, self.name = shelf, name

    def renew(self) -> bool:
        return self._ours()

    def release(self) -> None:
        if self._ours():
            self.shelf.owner = None

    def _ours(self) -> bool:
        return self.shelf.owner is not None and self.shelf.owner[0] == self.name


class Ledger:
    """One process's way to the ledger: its next write may fail in one of three ways."""

    def __init__(self, inner: EngineStore) -> None:
        self.inner = inner
        self.fault: str | None = None

    def write(self, fn: Callable[[Connection], T]) -> T:
        fault, self.fault = self.fault, None
        if fault == "no turn":
            raise Unavailable("no turn could be had")
        if fault == "commit lost":
            raise CommitUnknown("the connection broke in COMMIT")
        result = self.inner.write(fn)
        if fault == "commit unseen":
            raise CommitUnknown("the connection broke after COMMIT")
        return result

    def read(self, fn: Callable[[Connection], T]) -> T:
        return self.inner.read(fn)


def in_memory(image: bytes | None = None) -> Engine:
    """A database of one connection."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    if image is not None:
        with engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            raw.deserialize(image)
    return engine


@functools.cache
def furnished() -> bytes:
    """The small world before anything happens in it, as a file's bytes: making it anew takes longer than a schedule."""
    engine = in_memory()
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(ledger_numbers), {"only": 1, "value": 0})
    World(store=EngineStore(engine)).build()
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        image = bytes(raw.serialize())
    engine.dispose()
    return image


class Schedules(RuleBasedStateMachine):
    """One account, three processes, and everybody who may interfere."""

    @initialize(graceful=st.booleans(), data=st.data())
    def begin(self, graceful: bool, data: st.DataObject) -> None:
        self.world = World(store=EngineStore(in_memory(furnished())))
        self.wire = Wire(graceful=graceful)
        self.wire.fate = lambda: self._draw(st.sampled_from(Fate), "the request is", often=Fate.ANSWERED)
        self.wire.meanwhile = self._sent
        self.shelf = Shelf(self.world)
        profiles = {"github": replace(PROFILES["github"], grace_seconds=60 if graceful else 0)}
        clock = self.world.clock
        self.ledgers = [Ledger(self.world.store) for _ in range(PROCESSES)]
        self.coordinators = [
            Coordinator(
                ledger,
                self.world.vault,
                self.wire,  # type: ignore[arg-type]  # all that is asked of it
                self.shelf,  # type: ignore[arg-type]
                profiles,
                clock=clock,
                ids=self.world.id,
                budget=BUDGET,
                gate=Gate(None, monotonic=self._seconds),
                reached=self._reached,
                monotonic=self._seconds,
                sleep=self._sleep,
            )
            for ledger in self.ledgers
        ]
        self.running: list[int] = []
        self.data = data
        self.highest = (0, 0, 0)
        self.excuses: set[int] = set()  # generations whose refresh was interfered with by a fault
        self.number = itertools.count()
        outcome = self.world.try_consent(tokens=("access-0", "refresh-0"))
        assert isinstance(outcome, Consented)
        self.account = outcome.account

    def _seconds(self) -> float:
        return self.world.clock.now.timestamp()

    def _sleep(self, seconds: float) -> None:
        self.world.clock.advance(timedelta(seconds=seconds))

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.store.engine.dispose()

    # What anybody may do, at the top or while a refresh stands still

    @rule(data=st.data(), refused=st.booleans(), behind=st.booleans())
    def refresh(self, data: st.DataObject, refused: bool, behind: bool) -> None:
        self.data = data
        self._refresh(refused=refused, behind=behind)

    @rule(hours=st.sampled_from([0.005, 0.02, 0.5, 2]))
    def wait(self, hours: float) -> None:
        self.world.clock.advance(timedelta(hours=hours))

    @rule()
    def consent(self) -> None:
        self.world.try_consent(tokens=self.wire.consent())

    @rule(scope=st.sampled_from(SCOPES))
    def revoke(self, scope: Scope) -> None:
        self.world.revoke(scope)

    @rule(data=st.data())
    def housekeeping(self, data: st.DataObject) -> None:
        self.data = data
        self._settle()

    @rule(away=st.booleans(), forget=st.booleans())
    def redis(self, away: bool, forget: bool) -> None:
        self.shelf.away = away
        if forget:
            self.shelf.owner = None

    @rule(before=st.integers(0, 30))
    def open(self, before: int) -> None:
        """A step of a job that was accepted some numbers ago opens only by the rule, and with a committed token."""
        newest = self.world.number()
        accepted = max(1, newest - before)
        lease = self.world.examine(accepted=accepted)
        if not isinstance(lease, Leased):
            return
        revoked = self._revoked(SCOPES)
        assert revoked < accepted, "a step of a job older than a revocation was opened"
        assert self._revoked(grant_scopes(ANNA)) < self.world.grant().consented
        token = open_token(self.world.vault, ANNA.tenant, lease).reveal()
        assert token in self.wire.issued
        assert token == self.world.token(name=ACCESS)

    # How a schedule interferes

    def _refresh(self, *, refused: bool = False, behind: bool = False) -> None:
        idle = [number for number in range(PROCESSES) if number not in self.running]
        if not idle:
            return
        number = idle[0]
        self.running.append(number)
        after = max(0, self.world.generation() - behind)
        try:
            with suppress(Killed, AswhomError):
                generation = self.coordinators[number].refresh(self.account, after_generation=after, refused=refused)
                assert self.world.generation() >= generation, "a generation was used that is not committed"
                assert generation >= after
        finally:
            self.running.remove(number)
            self.ledgers[number].fault = None

    def _settle(self) -> None:
        idle = [number for number in range(PROCESSES) if number not in self.running]
        if idle:
            self.running.append(idle[0])
            with suppress(Killed, AswhomError):
                self.coordinators[idle[0]].settle_abandoned()
            self.running.remove(idle[0])

    def _draw(self, what: st.SearchStrategy[T], label: str, *, often: T) -> T:
        """Mostly *often*: schedules in which everything goes wrong at once get nowhere."""
        if self.data.draw(st.integers(0, 2), label="interfere?"):
            return often
        drawn = self.data.draw(what, label=label)
        if drawn is not often:
            self.excuses.add(self.world.generation())
        return drawn

    def _reached(self, point: str) -> None:
        choices = ["nothing", "die", "no turn", "commit lost", "commit unseen", "meanwhile"]
        match self._draw(st.sampled_from(choices), f"at {point}", often="nothing"):
            case "die":
                raise Killed(point)
            case "no turn" | "commit lost" | "commit unseen" as fault:
                self.ledgers[self.running[-1]].fault = fault
            case "meanwhile":
                self._meanwhile()

    def _meanwhile(self) -> None:
        acts: list[Callable[[], object]] = [
            lambda: self.world.clock.advance(timedelta(seconds=self.data.draw(st.sampled_from([3, 26, 61])))),
            self.consent,
            lambda: self.revoke(self.data.draw(st.sampled_from(SCOPES))),
            lambda: self.open(self.data.draw(st.integers(0, 30))),
            lambda: setattr(self.shelf, "owner", None),
        ]
        if len(self.running) <= DEEPEST:
            acts += [self._refresh, self._settle]
        self.data.draw(st.sampled_from(acts), label="meanwhile")()

    def _sent(self, token: str) -> None:
        """The request is with the provider: it was allowed to go, and others act before it is answered."""
        intents = self._rows(select(refresh_intents).order_by(refresh_intents.c.generation.desc()))
        revoked, grant = self._revoked(grant_scopes(ANNA)), self.world.grant()
        if revoked >= grant.consented:
            assert intents[0].opened < revoked, "a refresh was sent that began after its revocation"
        if self._draw(st.booleans(), "others act", often=False):
            self._meanwhile()

    # What holds, always

    @invariant()
    def each_refresh_token_is_presented_once_or_is_counted_twice_in_a_grace_window(self) -> None:
        if not hasattr(self, "account"):
            return
        counted = [row.presented for row in self._rows(select(refresh_intents.c.presented))]
        assert sum(counted) >= self.wire.presented.total(), "something was sent that was not counted before"
        allowed = 2 if self.wire.graceful else 1
        # A busy provider has refused it without a look: that is the one other reason to show it again.
        shown = {token: times - self.wire.turned_away[token] for token, times in self.wire.presented.items()}
        assert all(times <= allowed for times in shown.values()), shown

    @invariant()
    def numbers_never_fall(self) -> None:
        if not hasattr(self, "account"):
            return
        grant = self.world.grant()
        now = (grant.generation, grant.consented, self._revoked(SCOPES))
        assert all(new >= old for new, old in zip(now, self.highest, strict=True)), (self.highest, now)
        self.highest = now

    @invariant()
    def a_grant_is_given_up_for_a_reason_and_a_loser_never_kills_the_winner(self) -> None:
        if not hasattr(self, "account"):
            return
        (row,) = self._rows(select(accounts.c.state))
        if row.state != AccountState.NEEDS_RECONNECT:
            return
        generation = self.world.generation()
        assert {generation, generation - 1} & self.excuses, "an account was given up though nothing had happened to it"

    @invariant()
    def every_generation_has_its_record(self) -> None:
        if not hasattr(self, "account"):
            return
        records = [
            row.generation for row in self._rows(select(audit.c.generation).where(audit.c.kind == "grant.refreshed"))
        ]
        assert len(records) == len(set(records)), "a generation was committed twice"

    def _revoked(self, scopes: Any) -> int:
        found = self.world.store.read(lambda connection: standings(connection, scopes))
        return max(standing.revoked for standing in found.values())

    def _rows(self, statement: Any) -> list[Any]:
        return list(self.world.store.read(lambda connection: connection.execute(statement).all()))


def run_schedules(number: int) -> None:
    chosen = random.randrange(2**32)
    print(f"seed {chosen}, {number} schedules")
    machine = seed(chosen)(type("Schedules", (Schedules,), {}))
    given = settings(
        max_examples=number,
        stateful_step_count=12,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=given)


@pytest.mark.timeout(600)
def test_no_schedule_breaks_a_promise() -> None:
    run_schedules(100)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_schedule_of_thousands_breaks_a_promise() -> None:
    run_schedules(5000)
