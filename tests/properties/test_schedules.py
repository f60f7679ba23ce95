"""The real coordinator in thousands of schedules: processes die, stand still and overtake each other at every point.

One thread plays all processes. Wherever a refresh stands between two of its commits, on the wire too, the schedule may
let another process do anything before it goes on, kill it, or fail its next write. Clock, provider, lock and the
ledger's faults are the schedule's; everything else is the code of production, on SQLite.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Connection, select

from identity.accounts.grants import ACCESS, REFRESH
from identity.accounts.leases import open_token
from identity.accounts.scopes import standings
from identity.audit.tables import audit
from identity.connect.consent_ledger import Consented
from identity.errors import AswhomError
from identity.model import AccountState, Leased, Scope, ScopeKind
from identity.providers import PROFILES
from identity.refresh.intents import IntentState
from identity.refresh.stale_access import drop_access
from identity.refresh.tables import refresh_intents
from identity.sql.sequence import lock_exclusive
from identity.tables import accounts
from identity.token_endpoint.gate import Gate
from tests.chance import IN_CONTROL, seed_of
from tests.identity.coordinators import put_together
from tests.identity.stores import EngineStore
from tests.identity.world import ANNA, World
from tests.killed import Killed
from tests.properties.held import BUDGET, Ledger, Shelf, furnished, in_memory
from tests.properties.provider import Fate, Shown, Wire

T = TypeVar("T")
SCOPES = (*ANNA.scopes, Scope(kind=ScopeKind.AGENT, key="bot"))
GRACE = timedelta(seconds=60)
PROCESSES, DEEPEST = 3, 2
HARMLESS = (Fate.REFUSED_CONNECTION, Fate.BUSY, Fate.LIMITED)  # certainly without effect, and the sender knows


class Schedules(RuleBasedStateMachine):
    """One account, three processes, and everybody who may interfere."""

    @initialize(graceful=st.booleans(), data=st.data())
    def begin(self, graceful: bool, data: st.DataObject) -> None:
        self.world = World(store=EngineStore(in_memory(furnished())))
        self.wire = Wire(grace=GRACE if graceful else timedelta(0), clock=self.world.clock)
        self.wire.fate = lambda: self._draw(st.sampled_from(Fate), "the request is", often=Fate.ANSWERED)
        self.wire.arriving = self._arriving
        self.wire.meanwhile = self._under_way
        self.shelf = Shelf(self.world)
        profiles = {"github": replace(PROFILES["github"], grace_seconds=int(self.wire.grace.total_seconds()))}
        clock = self.world.clock
        self.ledgers = [Ledger(self.world.store, self._committed) for _ in range(PROCESSES)]
        self.coordinators = [
            put_together(
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
        self.intents: dict[int, str] = {}  # by process: the one it committed last
        self.sent_as: dict[int, str] = {}  # by generation: the one by which its token was last shown
        self.unheard: dict[str, Shown] = {}  # by intent: a presentation whose answer is not committed
        self.data = data
        self.highest = (0, 0, 0)
        self.excused: set[str] = set()  # intents whose owner a fault, or others, kept from saying what became of them
        self.number = itertools.count()
        self.told = -1  # how many requests had left when a signal last put tokens out of date
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

    @rule()
    def signal(self) -> None:
        """What the account's tokens say does not hold any more; nothing is revoked."""
        account = self.world.account()

        def write(connection: Connection) -> None:
            lock_exclusive(connection, SCOPES[3])
            drop_access(connection, account)

        self.world.store.write(write)
        self.told = self.wire.asked

    @rule(data=st.data(), refused=st.booleans())
    def signal_during_a_refresh(self, data: st.DataObject, refused: bool) -> None:
        """While an answer is on its way. By chance alone, that would seldom come about in a grant that is alive."""
        self.data = data

        def told() -> None:
            self.signal()
            self._under_way()

        self.wire.meanwhile = told
        self._refresh(refused=refused)
        self.wire.meanwhile = self._under_way

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
        assert self._revoked(ANNA.scopes) < self.world.grant().consented
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
        if drawn is not often and drawn not in HARMLESS and self.running:
            self.excused.add(self.intents.get(self.running[-1], ""))
        return drawn

    def _committed(self) -> None:
        """Whatever answers are in the ledger by now are known to everybody."""
        if self.unheard:
            answered = select(refresh_intents.c.id).where(refresh_intents.c.state == IntentState.ANSWERED)
            for row in self._rows(answered):
                if shown := self.unheard.pop(row.id, None):
                    shown.heard = True

    def _reached(self, point: str) -> None:
        if point == "before_send":
            newest = self._newest()
            if newest.presented > 1 and self.sent_as.get(newest.generation) in self.excused:
                self.excused.add(newest.id)  # the repetition of one that may have had its effect
            self.sent_as[newest.generation] = self.intents[self.running[-1]] = newest.id
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
            self.signal,
            lambda: self.revoke(self.data.draw(st.sampled_from(SCOPES))),
            lambda: self.open(self.data.draw(st.integers(0, 30))),
            lambda: setattr(self.shelf, "owner", None),
        ]
        if len(self.running) <= DEEPEST:
            acts += [self._refresh, self._settle]
        self.data.draw(st.sampled_from(acts), label="meanwhile")()

    def _arriving(self, token: str, shown: Shown) -> None:
        """The request leaves: it was allowed to."""
        intent = self.intents[self.running[-1]]
        revoked, grant = self._revoked(ANNA.scopes), self.world.grant()
        if revoked >= grant.consented:
            assert self._newest().opened < revoked, "a refresh was sent that began after its revocation"
        # One that certainly had no effect may be repeated as often as it takes. Of the others one alone,
        # whose answer nobody can know, and inside the grace window that began with it.
        before = [each for each in self.wire.shown.get(token, []) if not each.turned_away]
        assert not any(each.heard and each.fate is Fate.ANSWERED for each in before), "its answer was there"
        assert len(before) <= (1 if self.wire.grace else 0), f"presented after {before}"
        assert all(shown.at < each.at + self.wire.grace for each in before), "presented after its grace window"
        self.unheard[intent] = shown

    def _under_way(self) -> None:
        """Others act before the answer is there."""
        if self._draw(st.booleans(), "others act", often=False):
            self._meanwhile()

    # What holds, always

    @invariant()
    def what_is_sent_is_counted_before_and_the_provider_never_sees_a_token_reused(self) -> None:
        if not hasattr(self, "account"):
            return
        counted = [row.presented for row in self._rows(select(refresh_intents.c.presented))]
        sent = sum(len(each) for each in self.wire.shown.values())
        assert sum(counted) >= sent, "something was sent that was not counted before"
        assert not self.wire.destroyed, "the provider saw a token reused"

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
        newest = self._newest()
        assert newest.generation == self.world.generation(), "what was given up is not what was presented"
        assert newest.state == IntentState.UNKNOWN, "a token that the provider takes was taken for dead"
        # One that was only to repeat another, and never left, stands in the row of that one's doubt.
        doubted = {newest.id} if newest.doubtful_since is None else {newest.id, self.sent_as.get(newest.generation)}
        assert doubted & self.excused, "an account was given up though nothing had happened to its refresh"
        shown = self.wire.shown.get(self.world.token(name=REFRESH), [])
        assert not any(each.heard and each.fate is Fate.ANSWERED for each in shown), "its new tokens were there"

    @invariant()
    def no_access_token_is_stored_that_a_signal_has_put_out_of_date(self) -> None:
        if hasattr(self, "account") and self.world.grant().access_sealed is not None:
            assert self.wire.issued[self.world.token(name=ACCESS)] > self.told

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

    def _newest(self) -> Any:
        return self._rows(select(refresh_intents).order_by(refresh_intents.c.opened.desc()))[0]

    def _rows(self, statement: Any) -> list[Any]:
        return list(self.world.store.read(lambda connection: connection.execute(statement).all()))


def run_schedules(number: int, *, slow: bool) -> None:
    """FAULTS_SEED repeats what a failure printed, with the same number of schedules."""
    machine = seed(seed_of(slow=slow))(type("Schedules", (Schedules,), {}))
    given = settings(
        max_examples=number,
        stateful_step_count=12,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        # A control (tests/faults/control.py) asks whether there is one, not for the smallest: that takes minutes.
        phases=[Phase.generate] if IN_CONTROL else list(Phase),
    )
    run_state_machine_as_test(machine, settings=given)


@pytest.mark.timeout(600)
def test_no_schedule_breaks_a_promise() -> None:
    run_schedules(100, slow=False)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_schedule_of_thousands_breaks_a_promise() -> None:
    run_schedules(2000, slow=True)
