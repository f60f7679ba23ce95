"""No sequence of questions, answers, policies, revocations, replays and delays opens what was not approved as shown.

Hypothesis drives the real ledger functions. The model is a list of what was asked and what was answered: whoever opens
a step must find there two people, neither of whom asked or had the job accepted anew, as far as anybody knows by then,
who were shown exactly that under the policy in force, in time, and who still have their authority.
`tests/payments/test_paid_as_shown.py` compares what an upstream then receives with what was shown.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, update

from identity.accounts.scopes import remember_stop, revoke_scope
from identity.audit import Act
from identity.digests import json_digest
from identity.model import PrincipalKind, Scope, ScopeKind
from identity.policy.rules import ApprovalNeed
from identity.principals import ensure_principal, link_alias
from identity.sql.sequence import lock_exclusive, next_number
from pipeline.approvals.votes import Counted
from pipeline.db.database import Database
from pipeline.jobs import waits
from pipeline.jobs.intents import Approved, Opened, OpenOutcome
from pipeline.jobs.moves import move_job
from pipeline.policy.change import put_in_force
from pipeline.states import JobState, Wait
from pipeline.steps.replay import replay_job
from pipeline.tables import jobs as jobs_table
from tests.chance import seed_of
from tests.ledger.approval_case import HOUR, POLICY, ApprovalCase
from tests.ledger.house import House
from tests.ledgers import open_ledger
from tests.servers.postgres import Emptied

APPROVERS = ("acme.erin", "acme.carol", "acme.bob", "acme.dave")  # first those of whom most may turn out
PEOPLE = ("acme.ada", *APPROVERS, "globex.bob")  # ada asks
TWO = ApprovalNeed(rule="two", quorum=2, approvers=frozenset({"acme.ada", *APPROVERS}), expires_in=HOUR)
# mostly the same: otherwise nothing is ever approved to the end; 2 has the parameters of 0, written as other bytes
REQUESTS = st.sampled_from([0, 0, 0, 0, 1, 2])
NEEDS = [{"rule": "two", "quorum": 2, "approvers": ["ada", "bob", "carol", "dave", "erin"]}]


def shown(request: int) -> dict[str, Any]:
    return {"amount": f"{request % 2} EUR", "request_sha256": f"bytes {request}"}


def hash_of(request: int) -> str:
    return f"hash {request % 2}"


def digest_of(request: int) -> str:
    return json_digest({**shown(request), "needs": NEEDS})


@dataclass
class Question:
    """What the model remembers of one approval."""

    request: int
    version: int
    said: dict[str, bool] = field(default_factory=dict)  # the first answer of each
    stale: bool = False  # the job was accepted anew since
    late: bool = False  # its time was over before it was used
    used: bool = False


class Approvals(RuleBasedStateMachine):
    """One job of ada's, whose step would do one of three things."""

    fresh: ClassVar[Callable[[], str]]  # the address of a ledger with a house in it, and nothing else
    opened: ClassVar[int] = 0  # without any, nothing was shown

    @initialize()
    def begin(self) -> None:
        self.database: Database = open_ledger(type(self).fresh())
        self.case = ApprovalCase(House(self.database), TWO)
        make = partial(ensure_principal, kind=PrincipalKind.USER, tenant="acme", now=datetime.now(UTC))
        for name in ("dave", "erin"):
            self.database.write(partial(make, id=f"acme.{name}", name=name))
        sent = update(jobs_table).values(triggered_by="chat:1002", triggered_login="carol-at-work")
        self.database.write(lambda c: c.execute(sent).rowcount)
        self.questions: dict[str, Question] = {}
        self.given: list[Approved] = []
        self.asked_it = {"acme.ada"}
        self.stopped: set[str] = set()
        self.revoked: set[str] = set()  # since the job was accepted
        self.version = self.events = 0
        self.all_the_way(0)

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()

    @property
    def barred(self) -> set[str]:
        return self.asked_it | self.stopped | self.revoked

    def state(self) -> str:
        return str(self.case.house.row(self.case.job.id).state)

    @precondition(lambda self: self.state() != JobState.WAITING)
    @rule(request=REQUESTS)
    def run(self, request: int) -> None:
        """A run comes to the step, and would do *request*."""
        self._run(request)

    def _run(self, request: int) -> None:
        if self.state() == JobState.QUEUED:
            self.case.again()
        asked = self.case.ask(request_hash=hash_of(request), shown=shown(request))
        if isinstance(asked, Approved):
            self.given.append(asked)
        if self.state() == JobState.WAITING:
            self.questions.setdefault(self.case.row.id, Question(request=request, version=self.version))

    @precondition(lambda self: self.questions)
    @rule(who=st.sampled_from(PEOPLE), yes=st.booleans() | st.just(True), saw=st.none() | REQUESTS)
    def answer(self, who: str, *, yes: bool, saw: int | None) -> None:
        """Somebody answers the newest question; *saw*: to what they were shown, None: to what it is about."""
        self._answer(who, yes=yes, saw=saw)

    def _answer(self, who: str, *, yes: bool, saw: int | None) -> None:
        row = self.case.row
        digest = row.digest if saw is None else digest_of(saw)
        if isinstance(self.case.say(who, yes=yes, digest=digest), Counted):
            question = self.questions[row.id]
            assert digest == digest_of(question.request), "an answer to something else counted"
            if who in question.said:
                assert question.said[who] == yes, "an answer was taken back"
                return
            assert who not in self.barred, "the answer of whoever has none counted"
            assert not question.stale
            question.said[who] = yes

    @precondition(lambda self: self.state() != JobState.WAITING)
    @rule(request=REQUESTS)
    def all_the_way(self, request: int) -> None:
        """What chance seldom comes to: asked, approved by enough, and found by the next run."""
        self._run(request)
        if self.state() == JobState.WAITING:
            for who in APPROVERS:
                self._answer(who, yes=True, saw=None)
        if self.state() != JobState.WAITING:
            self._run(request)

    @precondition(lambda self: self.given and self.state() == JobState.RUNNING)
    @rule(request=REQUESTS)
    def await_a_token(self, request: int) -> None:
        """A run comes to the step with all that was ever given, and has no token for as long as they last."""
        lease = replace(self.case.intent().lease, after_generation=1)
        for approval in self.given:
            outcome = self._open(approval, request, lease=lease)
            assert not isinstance(outcome, Opened)
        self.pass_time()

    @rule()
    def change_the_policy(self) -> None:
        self.version += 1
        text = POLICY.replace('"x"', f'"x{self.version}"')
        apply = partial(
            put_in_force, over=None, act=Act(audit_id=self.case.house.ids("aud"), by="test", now=datetime.now(UTC))
        )
        self.database.write(lambda c: apply(c, "acme", text))
        self.case.decision = replace(self.case.decision, policy=self.version)

    @rule(who=st.sampled_from(["acme.bob", "acme.erin"]), stop=st.sampled_from([False, False, True]))
    def withdraw(self, who: str, *, stop: bool) -> None:
        """An approver is revoked, or stopped as well: they have no word about what was accepted before."""
        scope = Scope(kind=ScopeKind.USER, key=who)

        def end(c: Connection) -> None:
            lock_exclusive(c, scope)
            revoke_scope(c, scope, next_number(c), reason="left", now=datetime.now(UTC))
            if stop:
                remember_stop(c, scope, stopped=True)

        self.database.write(end)
        self.stopped |= {who} if stop else set()
        self.revoked |= {who}

    @precondition(lambda self: "acme.carol" not in self.asked_it)
    @rule(by_number=st.booleans())
    def find_out_who_asked(self, *, by_number: bool) -> None:
        """An admin learns that carol sent the event: by the number there, or by the login of then."""
        link = partial(link_alias, tenant="acme", principal="acme.carol", made_by="test", now=datetime.now(UTC))
        link = partial(link, provider="chat", login="carol-at-work", external_id="1002" if by_number else "7")
        self.database.write(link)
        self.asked_it |= {"acme.carol"}

    @rule(by=st.sampled_from(["cli:root", "cli:root", "cli:erin"]))
    def replay(self, by: str) -> None:
        """A person ends the job and has it accepted anew: nothing that was asked before is an answer to it."""
        now = datetime.now(UTC)
        self.database.write(partial(move_job, job=self.case.job.id, to=JobState.CANCELLED))
        self.database.write(partial(replay_job, job=self.case.job.id, by=by, at=now))
        self.asked_it |= {"acme.erin"} if by == "cli:erin" else set()
        self.revoked.clear()
        for question in self.questions.values():
            question.stale = True

    @rule()
    def pass_time(self) -> None:
        """Every question's time is over, and housekeeping wakes who waits."""
        self.case.pass_time()
        for question in self.questions.values():
            question.late |= not question.used
        job = self.case.job
        end = partial(waits.end_wait, job=job.id, fence=job.fence, wait=Wait.APPROVAL, expired=True, reason=None)
        if self.state() == JobState.WAITING:
            self.database.write(end)

    @invariant()
    def nothing_opens_that_was_not_approved(self) -> None:
        """After every third event, all is tried with every approval that was ever given."""
        if not hasattr(self, "events") or self.state() != JobState.RUNNING:
            return
        self.events += 1
        if self.events % 3 == 0:
            for approval, request in itertools.product(reversed(self.given), (2, 1, 0)):
                self._try(approval, request)

    def _open(self, approval: Approved, request: int, **more: Any) -> OpenOutcome:
        sha256 = shown(request)["request_sha256"]
        hashes = {"request_hash": hash_of(request), "request_sha256": sha256}
        return self.case.open(step="step_1", approval=approval, **hashes, **more)

    def _try(self, approval: Approved, request: int) -> None:
        outcome = self._open(approval, request)
        if not isinstance(outcome, Opened):
            return
        question = self.questions[approval.id]
        assert question.request == request, "something else was done than was shown"
        assert question.version == self.version, "approved under another policy"
        assert not question.stale, "approved before the job was accepted anew"
        assert all(question.said.values()), "somebody said no"
        assert not question.late, "approved, and not used in time"
        assert len(question.said.keys() - self.barred) >= TWO.quorum, "too few people say yes"
        assert set(approval.by) <= question.said.keys() - self.barred, "somebody is named who did not approve"
        question.used = True
        Approvals.opened += 1


def _build(url: str) -> None:
    database = open_ledger(url)
    House(database).build()
    database.close()


@pytest.fixture
def on_sqlite(migrated_sqlite: Path, tmp_path: Path) -> Iterator[None]:
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="aswhom-", dir=memory if memory.is_dir() else tmp_path))
    template, numbers = folder / "built.sqlite", itertools.count(1)
    shutil.copy(migrated_sqlite, template)
    _build(f"sqlite:///{template}")

    def fresh() -> str:
        return f"sqlite:///{shutil.copy(template, folder / f'{next(numbers)}.sqlite')}"

    Approvals.fresh = staticmethod(fresh)
    yield
    shutil.rmtree(folder)


@pytest.fixture
def on_postgresql(migrated_postgres: Emptied) -> Iterator[None]:
    def fresh() -> str:
        migrated_postgres.empty()
        _build(migrated_postgres.url)
        return migrated_postgres.url

    Approvals.fresh = staticmethod(fresh)
    yield
    migrated_postgres.empty()


def run(*, examples: int, slow: bool) -> None:
    """FAULTS_SEED repeats what a failure printed, with the same number of examples."""
    Approvals.opened = 0
    machine = seed(seed_of(slow=slow))(type("Approvals", (Approvals,), {}))
    how = settings(
        max_examples=examples,
        stateful_step_count=15,
        derandomize=False,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=how)
    assert Approvals.opened


@pytest.mark.usefixtures("on_sqlite")
def test_no_sequence_of_approvals_opens_what_was_not_approved_as_shown() -> None:
    run(examples=15, slow=False)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("on_sqlite")
def test_a_thousand_sequences_of_approvals_open_nothing_else() -> None:
    run(examples=1000, slow=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("on_postgresql")
def test_a_hundred_sequences_of_approvals_open_nothing_else_on_postgresql() -> None:
    run(examples=100, slow=True)
