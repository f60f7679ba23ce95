"""No sequence of questions, answers, policies, revocations and delays opens a step that was not approved as shown.

Hypothesis drives the real ledger functions. The model is a list of what was asked and what was answered: whoever opens
a step must find there two people, neither of whom asked, who were shown exactly that under the policy in force, in
time, and who still have their authority.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection

from identity.model import Scope, ScopeKind
from identity.policy_rules import ApprovalNeed
from identity.scopes import revoke_scope, stop_scope
from identity.sequence import lock_exclusive, next_number
from pipeline.database import Database, DatabaseSettings, open_database
from pipeline.ledger import waits
from pipeline.ledger.intents import Approved, Opened
from pipeline.ledger.votes import Counted
from pipeline.policy_change import put_in_force
from pipeline.shown import digest_of
from pipeline.states import JobState, Wait
from tests.ledger.desk import HOUR, POLICY, Desk
from tests.ledger.house import House

PEOPLE = ("acme.ada", "acme.bob", "acme.carol", "globex.bob")  # ada asks
TWO = ApprovalNeed(rule="two", quorum=2, approvers=frozenset({"ada", "bob", "carol"}), expires_in=HOUR)
REQUESTS = st.sampled_from([0, 0, 0, 1])  # mostly the same: otherwise nothing is ever approved to the end


def shown(request: int) -> dict[str, Any]:
    return {"amount": f"{request} EUR"}


@dataclass
class Question:
    """What the model remembers of one approval."""

    request: int
    version: int
    yes: set[str] = field(default_factory=set)
    said_no: bool = False
    late: bool = False  # its time was over before it was used
    used: bool = False


class Approvals(RuleBasedStateMachine):
    """One job of ada's, whose step would do one of three things."""

    template: ClassVar[Path]
    folder: ClassVar[Path]
    opened: ClassVar[int] = 0  # without any, nothing was shown
    _made: ClassVar[int] = 0

    @initialize()
    def begin(self) -> None:
        type(self)._made += 1
        path = self.folder / f"{self._made}.sqlite"
        shutil.copy(self.template, path)
        self.database: Database = open_database(DatabaseSettings(url=f"sqlite:///{path}"))
        self.desk = Desk(House(self.database), TWO)
        self.questions: dict[str, Question] = {}
        self.given: list[Approved] = []
        self.gone: set[str] = set()
        self.version = self.events = 0
        self.all_the_way(0)

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()

    def state(self) -> str:
        return str(self.desk.house.row(self.desk.job.id).state)

    @precondition(lambda self: self.state() != JobState.WAITING)
    @rule(request=REQUESTS)
    def run(self, request: int) -> None:
        """A run comes to the step, and would do *request*."""
        self._run(request)

    def _run(self, request: int) -> None:
        if self.state() == JobState.QUEUED:
            self.desk.again()
        asked = self.desk.ask(request_hash=f"hash {request}", shown=shown(request))
        if isinstance(asked, Approved):
            self.given.append(asked)
        if self.state() == JobState.WAITING:
            self.questions.setdefault(self.desk.row.id, Question(request=request, version=self.version))

    @precondition(lambda self: self.questions)
    @rule(who=st.sampled_from(PEOPLE), yes=st.booleans() | st.just(True), saw=st.none() | REQUESTS)
    def answer(self, who: str, *, yes: bool, saw: int | None) -> None:
        """Somebody answers the newest question; *saw*: to what they were shown, None: to what it is about."""
        self._answer(who, yes=yes, saw=saw)

    def _answer(self, who: str, *, yes: bool, saw: int | None) -> None:
        row = self.desk.row
        digest = row.digest if saw is None else digest_of(shown(saw))
        if isinstance(self.desk.say(who, yes=yes, digest=digest), Counted):
            question = self.questions[row.id]
            assert digest == digest_of(shown(question.request)), "an answer to something else counted"
            assert who != "acme.ada", "whoever asked answered"
            question.said_no |= not yes
            question.yes |= {who} if yes else set()

    @precondition(lambda self: self.state() != JobState.WAITING)
    @rule(request=REQUESTS)
    def all_the_way(self, request: int) -> None:
        """What chance seldom comes to: asked, approved by both, and found by the next run."""
        self._run(request)
        if self.state() == JobState.WAITING:
            for who in ("acme.bob", "acme.carol"):
                self._answer(who, yes=True, saw=None)
        if self.state() != JobState.WAITING:
            self._run(request)

    @rule()
    def change_the_policy(self) -> None:
        self.version += 1
        text = POLICY.replace('"x"', f'"x{self.version}"')
        apply = partial(put_in_force, over=None, by="test", audit_id=self.desk.house.ids("aud"), now=datetime.now(UTC))
        self.database.write(lambda c: apply(c, "acme", text))
        self.desk.decision = replace(self.desk.decision, policy=self.version)

    @rule(who=st.sampled_from(["acme.bob", "acme.carol"]), stop=st.booleans())
    def withdraw(self, who: str, *, stop: bool) -> None:
        """An approver is revoked, or stopped: what they said before is not said."""
        scope = Scope(kind=ScopeKind.USER, key=who)

        def end(c: Connection) -> None:
            lock_exclusive(c, scope)
            revoke_scope(c, scope, next_number(c), reason="left", now=datetime.now(UTC))
            if stop:
                stop_scope(c, scope)

        self.database.write(end)
        self.gone |= {who} if stop else set()
        for question in self.questions.values():
            question.yes -= {who}

    @rule()
    def pass_time(self) -> None:
        """Every question's time is over, and housekeeping wakes who waits."""
        self.desk.pass_time()
        for question in self.questions.values():
            question.late |= not question.used
        end = partial(waits.end_wait, job=self.desk.job.id, wait=Wait.APPROVAL, expired=True, reason=None)
        if self.state() == JobState.WAITING:
            self.database.write(end)

    @invariant()
    def nothing_opens_that_was_not_approved(self) -> None:
        """After every third event, all is tried with every approval that was ever given."""
        if not hasattr(self, "events") or self.state() != JobState.RUNNING:
            return
        self.events += 1
        if self.events % 3 == 0:
            for approval, request in itertools.product(reversed(self.given), (1, 0)):
                self._try(approval, request)

    def _try(self, approval: Approved, request: int) -> None:
        outcome = self.desk.open(step="step_1", request_hash=f"hash {request}", approval=approval)
        if not isinstance(outcome, Opened):
            return
        question = self.questions[approval.id]
        assert question.request == request, "something else was done than was shown"
        assert question.version == self.version, "approved under another policy"
        assert not question.said_no
        assert not question.late, "approved, and not used in time"
        assert len(question.yes - self.gone) >= TWO.quorum, "too few people say yes"
        question.used = True
        type(self).opened += 1


@pytest.fixture
def run(migrated_sqlite: Path, tmp_path: Path) -> Iterator[Any]:
    memory = Path("/dev/shm")
    folder = memory / f"aswhom-{tmp_path.parent.name}-{tmp_path.name}" if memory.is_dir() else tmp_path / "made"
    folder.mkdir()
    Approvals.template, Approvals.folder = folder / "built.sqlite", folder
    shutil.copy(migrated_sqlite, Approvals.template)
    database = open_database(DatabaseSettings(url=f"sqlite:///{Approvals.template}"))
    House(database).build()
    database.close()

    def machine(*, examples: int, by_chance: bool) -> None:
        checks = list(HealthCheck)
        how = settings(
            max_examples=examples,
            stateful_step_count=15,
            derandomize=not by_chance,
            deadline=None,
            suppress_health_check=checks,
            print_blob=True,
        )
        run_state_machine_as_test(Approvals, settings=how)
        assert Approvals.opened

    yield machine
    shutil.rmtree(folder)


def test_no_sequence_of_approvals_opens_what_was_not_approved_as_shown(run: Any) -> None:
    run(examples=8, by_chance=False)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_sequences_of_approvals_open_nothing_else(run: Any) -> None:
    run(examples=1000, by_chance=True)
