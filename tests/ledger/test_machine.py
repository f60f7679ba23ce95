"""Any order of consents, refreshes, openings, closings, retries, replays, revocations and late signals keeps the rule.

Hypothesis drives the real ledger functions and compares them with a model of a dozen lines: the numbers themselves.
What it must never see: an opening against the rule; cancelled work that a consent brings back; a refresh that was out
when its grant was revoked and brings it back, or whose answer nobody keeps to end it at the provider; a late signal
that moves anything; an opening by a scope of the provider's that a narrowing took away.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, select

from identity.accounts import find_account
from identity.audit import Act
from identity.connect.sessions import ConnectSession, add_session
from identity.consent_ledger import Consent, Consented, store_consent
from identity.errors import Unavailable
from identity.grants import SealedAnswer, get_grant, seal_answer
from identity.model import AccountKey, AccountState, Credential, Scope, ScopeKind, TokenAnswer
from identity.narrowing import narrow
from identity.refresh.endings import Settled
from identity.refresh.intents import IntentState, RefreshIntent, kept_answers, store_answer
from identity.refresh.opening import begin
from identity.refresh.settlement import Settlement
from identity.scopes import open_scope, stop_scope
from identity.secret import Secret
from identity.sequence import next_number
from identity.withdrawals import Withdrawal, WithdrawalState, get_withdrawal, settle
from identity.withdrawals.withdrawer import Turn
from pipeline.accounts.connecting import wake_waiting
from pipeline.database import Database
from pipeline.ledger import jobs as ledger_jobs
from pipeline.ledger.intents import Intent, Opened
from pipeline.ledger.jobs import ClaimedJob
from pipeline.ledger.replay import replay
from pipeline.revocation import declare
from pipeline.revocation.provider_side import ProviderAsker
from pipeline.revocation.signal import Asks, Installation, People, Signal
from pipeline.revocation.tables import revocations
from pipeline.states import AttemptState, JobState, StepState
from pipeline.tables import jobs as jobs_table
from tests.ledger.acts import SIGNER, close, open_
from tests.ledger.house import House, account_scope
from tests.ledger.house import intent_of as intent
from tests.ledger.revokers import quiet_revoker
from tests.ledger.signals import say
from tests.ledgers import open_ledger
from tests.servers.postgres import Emptied

ADA = AccountKey(tenant="acme", connection="gh", principal="acme.ada")
SCOPES = (
    account_scope(),
    Scope(kind=ScopeKind.USER, key="acme.ada"),
    Scope(kind=ScopeKind.AGENT, key="tester"),
    Scope(kind=ScopeKind.CONNECTION, key="gh"),
    Scope(kind=ScopeKind.TENANT, key="acme"),
)
OF_GRANT = tuple(scope for scope in SCOPES if scope.kind is not ScopeKind.AGENT)
GRANTED = ("comments", "issues")  # the provider's scopes, of which a step needs one or none
LONG = timedelta(hours=2)
#: What many orders of events must come to, or they show nothing. A few may miss one of them.
REACHED = {
    "an opening",
    "a step without a scope that was taken away",
    "a consent after cancelled work",
    "a late signal on a live account",
    "a refresh won after its revocation",
    "its end at the provider",
}


class Ledger(RuleBasedStateMachine):
    """One person, one account, several jobs; `template` is a migrated ledger to copy."""

    template: ClassVar[Path]
    folder: ClassVar[Path]
    _made: ClassVar[int] = 0
    reached: ClassVar[Counter[str]] = Counter()  # by all orders of events together

    jobs = Bundle("jobs")
    sessions = Bundle("sessions")

    @initialize()
    def begin(self) -> None:
        self.database = self.opened()
        self.house = House(self.database)
        self.revoked: dict[Scope, int] = dict.fromkeys(SCOPES, 0)  # the model: a number a scope
        self.stopped: set[Scope] = set()
        self.taken: set[str] = set()  # by narrowings since the last consent
        self.claimed: dict[str, ClaimedJob] = {}
        self.flying: list[Intent] = []
        self.refreshing: list[tuple[Settlement, SealedAnswer]] = []
        self.ended: dict[str, int] = {}  # cancelled jobs, by the number they were accepted with
        self.positions: dict[str, int] = {}
        self.won: set[str] = set()  # refreshes whose answers came after their revocation
        self.asked: set[str] = set()  # withdrawals: what the provider was asked to end

    def opened(self) -> Database:
        type(self)._made += 1
        path = self.folder / f"{self._made}.sqlite"
        shutil.copy(self.template, path)
        self.path: Path | None = path
        return open_ledger(f"sqlite:///{path}")

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()
            if self.path is not None:
                for file in self.folder.glob(f"{self.path.name}*"):
                    file.unlink()

    # What the model knows

    def account(self) -> AccountState:
        found = self.database.read(partial(find_account, key=ADA))
        assert found is not None
        return found.state

    def grant(self) -> Any:
        found = self.database.read(partial(find_account, key=ADA))
        assert found is not None
        return self.database.read(partial(get_grant, account=found.id))

    def allows(self, accepted: int) -> bool:
        """The rule by which a step opens, in the model's own words."""
        if self.stopped or accepted <= max(self.revoked.values()):
            return False
        consented = self.grant().consented
        return self.account() is AccountState.ACTIVE and consented > max(self.revoked[scope] for scope in OF_GRANT)

    # What happens

    @rule(target=jobs)
    def accept(self) -> str:
        return self.house.job()

    @rule(job=jobs)
    def claim(self, job: str) -> None:
        if self.house.row(job).state == JobState.QUEUED:
            held = self.house.claim(job)
            self.claimed[held.id] = held

    @rule(job=jobs, needs=st.sampled_from([(), *((scope,) for scope in GRANTED)]))
    def open(self, job: str, needs: tuple[str, ...]) -> None:
        held = self.claimed.get(job)
        if held is None or self.house.row(job).state != JobState.RUNNING:
            return
        allowed = self.allows(held.accepted)
        self.positions[job] = self.positions.get(job, 0) + 1
        asked = intent(self.house, held, step=self.house.ids("step"), position=self.positions[job])
        asked = replace(asked, lease=replace(asked.lease, scopes=frozenset(needs)))
        outcome = open_(self.house, asked)
        self.reached["a step without a scope that was taken away"] += bool(allowed and self.taken & set(needs))
        if isinstance(outcome, Opened):
            assert not self.taken & set(needs), "a step opened by a scope that was taken away"
            assert allowed, "a step opened against the rule"
            self.reached["an opening"] += 1
            self.flying.append(asked)
        elif allowed:
            # The rule allows it, so it is a scope that is missing, or the token: a refresh would be next.
            assert not set(needs) <= set(self.grant().scopes) or self.grant().access_sealed is None

    @precondition(lambda self: bool(self.flying))
    @rule(effect=st.sampled_from([AttemptState.EFFECT, AttemptState.NO_EFFECT, AttemptState.UNKNOWN]), data=st.data())
    def close(self, effect: AttemptState, data: st.DataObject) -> None:
        asked = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        step = {
            AttemptState.EFFECT: StepState.DONE,
            AttemptState.NO_EFFECT: StepState.OPEN,
            AttemptState.UNKNOWN: StepState.UNKNOWN,
        }[effect]
        close(self.house, asked, effect, step, **({"result": {"id": "1"}} if step is StepState.DONE else {}))

    @rule(job=jobs)
    def retry(self, job: str) -> None:
        held = self.claimed.pop(job, None)
        if held is not None:
            requeue = partial(ledger_jobs.requeue, job=held, delay=timedelta(), reason="again")
            self.database.write(requeue)

    @rule(job=jobs)
    def finish(self, job: str) -> None:
        held = self.claimed.pop(job, None)
        if held is not None:
            self.database.write(partial(ledger_jobs.finish, job=held))

    @rule(job=jobs)
    def replay(self, job: str) -> None:
        if self.house.row(job).state in (JobState.CANCELLED, JobState.DEAD):
            self.database.write(partial(replay, job=job, by="test", at=datetime.now(UTC)))
            self.ended.pop(job, None)
            self.claimed.pop(job, None)

    @rule(scope=st.sampled_from(SCOPES))
    def revoke(self, scope: Scope) -> None:
        id, now = self.house.ids("rev"), datetime.now(UTC)
        self.revoked[scope] = self.database.write(
            partial(declare, id=id, scope=scope, tenant="acme", source="t", by="t", reason="t", now=now)
        )

    @rule()
    def tidy(self) -> None:
        asker = ProviderAsker(self.database, self._ask, clock=lambda: datetime.now(UTC))
        revoker = quiet_revoker(self.database, SIGNER, withdraw=asker.advance)
        quiet = [revoker.advance(made) for made in (*revoker.unfinished(idle_seconds=-1), *asker.due())]
        if all(quiet):  # else calls are in flight, and it is asked after those
            self.reached["its end at the provider"] += bool(self.won)
            assert self.won <= self.asked, "what a refresh won after its revocation was left alive at the provider"

    def _ask(self, withdrawal: str, _others: Sequence[str]) -> Turn:
        """The provider is asked, and has ended it."""

        def end(c: Connection) -> Withdrawal | None:
            found = get_withdrawal(c, withdrawal)
            settle(c, withdrawal, to=WithdrawalState.DONE, reason="asked", now=datetime.now(UTC))
            return found

        one = self.database.write(end)
        assert one is not None
        assert one.consented <= max(self.revoked[scope] for scope in OF_GRANT), "a later consent was ended"
        self.asked.add(withdrawal)
        return Turn()

    @rule(scope=st.sampled_from(SCOPES))
    def stop(self, scope: Scope) -> None:
        self.database.write(lambda c: stop_scope(c, scope))
        self.stopped.add(scope)

    @precondition(lambda self: bool(self.stopped))
    @rule()
    def open_again(self) -> None:
        for scope in self.stopped:
            self.database.write(partial(open_scope, scope=scope))
        self.stopped.clear()

    @rule(keep=st.sampled_from(GRANTED))
    def narrow(self, keep: str) -> None:
        had = set(self.grant().scopes)
        if not {keep} < had:
            return
        act = Act(audit_id=self.house.ids("aud"), by="test", now=datetime.now(UTC))

        def narrow_(c: Connection) -> None:
            account = find_account(c, ADA)
            assert account is not None
            narrow(c, account, act, keep=(keep,))

        self.database.write(narrow_)
        self.taken |= had - {keep}

    # Signals

    @rule(seen=st.booleans())
    def signal(self, seen: bool) -> None:
        before = self.account()
        said = Signal(source="t", asks=Asks.REVOKE, whom=(People(ids=frozenset({"1001"})),), reason="t")
        made = say(self.house, said, seen=seen).revocations
        if before in (AccountState.ACTIVE, AccountState.SUSPENDED, AccountState.NEEDS_RECONNECT):
            assert made, "a signal about a live account did not fail closed"
        if made:
            self.revoked[account_scope()] = self._newest()

    def _newest(self) -> int:
        newest = select(revocations.c.number).order_by(revocations.c.number.desc()).limit(1)
        return int(self.database.read(lambda c: c.execute(newest).scalar_one()))

    @rule(asks=st.sampled_from([Asks.REVOKE, Asks.SUSPEND, Asks.RESUME]), seen=st.booleans())
    def late_signal(self, asks: Asks, seen: bool) -> None:
        """Of a time before every consent: it moves nothing."""
        before = (self.account(), self.grant(), self._states())
        self.reached["a late signal on a live account"] += before[0] is AccountState.ACTIVE
        late = datetime.now(UTC) - LONG
        whom = People(ids=frozenset({"1001"}))
        said = Signal(source="t", asks=asks, whom=(whom, Installation(id="gone")), reason="t", happened_at=late)
        # A link that is under way is ended by any revocation, however late: that is what failing closed means.
        made = say(self.house, said, seen=seen).revocations
        if made:
            assert before[0] in (AccountState.REVOKED, AccountState.PENDING)
            self.revoked[account_scope()] = self._newest()
            return
        assert (self.account(), self.grant(), self._states()) == before

    @rule(suspend=st.booleans())
    def suspension(self, suspend: bool) -> None:
        asks, whom = Asks.SUSPEND if suspend else Asks.RESUME, People(ids=frozenset({"1001"}))
        at = datetime.now(UTC) + timedelta(seconds=2)
        was, grant = self.account(), self.grant()
        say(self.house, Signal(source="t", asks=asks, whom=(whom,), reason="t", happened_at=at))
        if suspend and was is AccountState.ACTIVE:
            assert self.account() is AccountState.SUSPENDED
        elif not suspend and was is AccountState.SUSPENDED:
            # A revocation of what is above it ends its credentials at the provider, and leaves its state alone.
            held = grant.access_sealed is not None or grant.refresh_sealed is not None
            assert self.account() is (AccountState.ACTIVE if held else AccountState.NEEDS_RECONNECT)
        else:
            assert self.account() is was

    # Consents and refreshes

    @rule(target=sessions)
    def start_session(self) -> tuple[int, datetime]:
        now = datetime.now(UTC)
        id = self.house.ids("con")

        def start(c: Any) -> int:
            number = next_number(c)
            add_session(
                c,
                ConnectSession(
                    id=id,
                    key=ADA,
                    state_hash=id,
                    started=number,
                    scopes=(),
                    verifier_sealed=b"",
                    browser_hash=None,
                    expires_at=now + LONG,
                    finished_at=None,
                    created_at=now,
                ),
            )
            return number

        return self.database.write(start), now

    @rule(session=sessions)
    def consent(self, session: tuple[int, datetime]) -> None:
        started, began = session
        grant = self.grant()
        if started <= grant.consented:
            return  # a link is good once
        answer, account = self._answer(f"c{started}"), grant.account
        sealed = seal_answer(
            self.house.vault, answer, tenant="acme", account=account, provider="github", generation=grant.generation + 1
        )
        consent = Consent(
            id=account,
            key=ADA,
            provider="github",
            credential=Credential.AUTHORIZATION_CODE,
            consented=started,
            external_id="1001",
            began_at=began,
        )

        def write(c: Any) -> Any:
            outcome = store_consent(c, consent, sealed, now=datetime.now(UTC))
            if isinstance(outcome, Consented):
                ledger_jobs.wake(c, ledger_jobs.consent_of(ADA))
            return outcome

        outcome = self.database.write(write)
        allowed = not (self.stopped & set(OF_GRANT)) and started > max(self.revoked[scope] for scope in OF_GRANT)
        assert isinstance(outcome, Consented) is allowed, "a consent from before a revocation counted"
        if allowed:
            assert self.account() is AccountState.ACTIVE
            self.taken.clear()
            self.reached["a consent after cancelled work"] += bool(self.ended)

    @rule()
    def begin_refresh(self) -> None:
        account = self.database.read(partial(find_account, key=ADA))
        grant = self.grant()
        assert account is not None
        now = datetime.now(UTC)
        new = RefreshIntent(
            id=self.house.ids("ref"),
            account=account.id,
            generation=grant.generation,
            consented=grant.consented,
            state=IntentState.OPEN,
            opened=0,
            started_at=now,
            send_before=now + timedelta(seconds=5),
            settled_by=now + timedelta(seconds=25),
            presented=1,
        )
        made = self.database.write(partial(begin, account=account, new=new, former=None, granted=grant.scopes))
        if not isinstance(made, RefreshIntent):
            return
        revoked = max(self.revoked[scope] for scope in OF_GRANT)
        assert grant.consented > revoked
        assert not self.stopped & set(OF_GRANT)
        sealed = seal_answer(
            self.house.vault,
            self._answer(made.id),
            tenant="acme",
            account=account.id,
            provider="github",
            generation=grant.generation + 1,
        )
        answered = replace(made, state=IntentState.ANSWERED)
        settlement = Settlement(
            account=account, intent=answered, now=now, ids=partial(self.house.ids, "aud"), restored=wake_waiting
        )
        self.refreshing.append((settlement, sealed))

    @precondition(lambda self: bool(self.refreshing))
    @rule(dead=st.booleans())
    def end_refresh(self, dead: bool) -> None:
        settlement, sealed = self.refreshing.pop(0)
        before = self.grant()
        self.database.write(partial(store_answer, intent=settlement.intent.id, sealed=b"raw"))
        end = partial(settlement.bury, code="invalid_grant") if dead else partial(settlement.commit, sealed=sealed)
        was = self.account()
        outcome = self.database.write(end)
        revoked = settlement.intent.consented <= max(self.revoked[scope] for scope in OF_GRANT)
        moved = before.generation != settlement.intent.generation
        if revoked or moved:
            assert not isinstance(outcome, Settled), "a refresh brought back what was revoked or replaced"
            assert self.grant() == before
            assert self.account() is was
        kept = self.database.read(partial(kept_answers, account=settlement.account.id))
        late = settlement.intent.id in {intent.id for intent in kept}
        self.won |= {settlement.intent.id} if late else set()
        self.reached["a refresh won after its revocation"] += late
        assert late is revoked, "an answer is kept if it came after a revocation, to be ended at the provider, or not"

    # All the way: what a dozen rules in one order come to is seldom reached by chance

    @rule(target=jobs, connected=st.booleans(), keeps=st.sampled_from([None, *GRANTED]))
    def work(self, connected: bool, keeps: str | None) -> str:
        """A job to its step, for somebody who has connected just now, or not, and kept some scopes, or all."""
        if connected:
            self.connect_again()
        if keeps is not None:
            self.narrow(keeps)
        job = self.house.job()
        self.claim(job)
        self.open(job, GRANTED[:1])
        return job

    @rule()
    def connect_again(self) -> None:
        """Nobody is stopped any more, and a consent is given."""
        if self.stopped:
            self.open_again()
        self.consent(self.start_session())

    @rule(scope=st.sampled_from(OF_GRANT), dead=st.booleans())
    def revoke_beside_a_refresh(self, scope: Scope, dead: bool) -> None:
        self.connect_again()
        self.begin_refresh()
        self.revoke(scope)
        while self.refreshing:
            self.end_refresh(dead)
        self.tidy()

    @staticmethod
    def _answer(mark: str) -> TokenAnswer:
        return TokenAnswer(
            access_token=Secret(f"access-{mark}"),
            refresh_token=Secret(f"refresh-{mark}"),
            expires_at=datetime.now(UTC) + LONG,
            scopes=GRANTED,
            token_type="bearer",
        )

    # What is always so

    def _states(self) -> dict[str, str]:
        return dict(self.house.states())

    @invariant()
    def cancelled_work_stays_cancelled(self) -> None:
        if not hasattr(self, "database"):
            return
        rows = self.database.read(
            lambda c: c.execute(select(jobs_table.c.id, jobs_table.c.state, jobs_table.c.accepted))
        )
        for row in list(rows):
            if row.id in self.ended:
                assert row.state == JobState.CANCELLED, "what was cancelled came back without a person's replay"
            elif row.state == JobState.CANCELLED:
                self.ended[row.id] = row.accepted


T = TypeVar("T")


class Patient:
    """A ledger whose transactions are made again where its server ended them for standing still, as on a busy machine:
    nothing of them was written.
    """

    def __init__(self, database: Database) -> None:
        self.engine = database.engine
        self.close = database.close
        self.check_fit, self.in_commit = database.check_fit, database.in_commit
        self._database = database

    def write(self, fn: Callable[[Connection], T], *, until: float | None = None, ahead: bool = False) -> T:
        return self._made(lambda made: self._database.write(made, until=until, ahead=ahead), fn)

    def read(self, fn: Callable[[Connection], T]) -> T:
        return self._made(self._database.read, fn)

    @staticmethod
    def _made(how: Callable[[Callable[[Connection], T]], T], fn: Callable[[Connection], T]) -> T:
        for _ in range(4):
            try:
                return how(fn)
            except Unavailable as error:
                if "idle-in-transaction timeout" not in str(error.__cause__):
                    raise
        return how(fn)


class OnPostgres(Ledger):
    """The same on PostgreSQL: one migrated database, emptied before each order of events."""

    migrated: ClassVar[Emptied]

    def opened(self) -> Database:
        self.path = None
        self.migrated.empty()
        database = Patient(open_ledger(self.migrated.url))
        House(database).build()
        return database


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: thousands of commits need not be flushed to a disk to be in order."""
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else tmp_path))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def on_postgres(migrated_postgres: Emptied) -> Iterator[type[OnPostgres]]:
    OnPostgres.migrated = migrated_postgres
    yield OnPostgres
    migrated_postgres.empty()


def run_on_sqlite(folder: Path, migrated: Path, *, examples: int) -> None:
    Ledger.folder, Ledger.template = folder, folder / "built.sqlite"
    shutil.copy(migrated, Ledger.template)
    database = open_ledger(f"sqlite:///{Ledger.template}")
    House(database).build()
    database.close()
    drive(Ledger, examples=examples)


def drive(machine: type[Ledger], *, examples: int) -> None:
    machine.reached = Counter()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
            # A control asks only whether it fails, and is cut before the failure is at its smallest.
            phases=[Phase.generate] if "TESTS_CONTROL" in os.environ else list(Phase),
        ),
    )


def came_to_all(machine: type[Ledger]) -> None:
    missed = REACHED - {what for what, times in machine.reached.items() if times}
    assert not missed, "the rule was kept where nothing tried it"


def test_any_order_of_events_keeps_the_rule(migrated_sqlite: Path, folder: Path) -> None:
    run_on_sqlite(folder, migrated_sqlite, examples=40)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thousands_of_orders_of_events_keep_the_rule(migrated_sqlite: Path, folder: Path) -> None:
    run_on_sqlite(folder, migrated_sqlite, examples=2000)
    came_to_all(Ledger)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_hundreds_of_orders_of_events_keep_the_rule_on_postgresql(on_postgres: type[OnPostgres]) -> None:
    drive(on_postgres, examples=400)
    came_to_all(on_postgres)
