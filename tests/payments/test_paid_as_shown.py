"""No sequence of events moves money other than as approvers were shown it and said yes to.

A worker's runtime pays at the sandbox's service over HTTP, while people answer, policies and prices change, workers
die and a thief listens. The model is what was shown and what was answered. It is compared with the capabilities that
were issued, the requests that the service received, and the movements in its books. `tests/properties` tries the
ledger's functions in the same way, in more sequences and with no effect.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select, update

from identity.audit import Act
from identity.model import PrincipalKind, ScopeKind
from identity.principals import ensure_principal, link_alias
from pipeline.approvals.tables import approvals
from pipeline.approvals.votes import Channel, Counted, Link, Vote
from pipeline.desk.tenants import remove_alias
from pipeline.states import CUT_SHORT, ApprovalState
from pipeline.steps.replay import replay_job
from pipeline.tables import steps
from tests.chance import IN_CONTROL, seed_of
from tests.payments.conftest import at_work, furnish
from tests.payments.payments import LARGE, OTHER, SMALL, Payments
from tests.sandbox.driver import Sandbox
from tests.servers.postgres import Emptied
from tests.tasks.approvals import apply

PEOPLE = ("ada", "grace", "edsger", "barbara")  # the first two ask for payments; all may approve
POLICY = """
format = 1

[[allow]]
name = "invoices"
when = {{ action = "invoices.PayInvoice" }}
limit = "50000 EUR"

[[rule]]
name = "two people, {number}"
when = {{ action = "invoices.PayInvoice" }}
approval = {{ approvers = ["ada", "grace", "edsger", "barbara"], quorum = 2 }}
"""
PRICES = st.sampled_from(["480.00", "12500.00", "49000.00"])
INVOICES = st.sampled_from([SMALL, LARGE, OTHER])


@dataclass
class Question:
    """What the model remembers of one approval."""

    id: str
    job: str
    digest: str
    payment: tuple[str, Decimal, str]  # invoice, amount and currency, as shown
    as_whom: str
    version: int
    said: dict[str, bool] = field(default_factory=dict)
    over: bool = False  # expired, or its job was accepted anew, or a yes was taken back: before it was used
    used: bool = False
    moved: bool = False


class Paying(RuleBasedStateMachine):
    """Acme's people, their agent, and a thief."""

    service: ClassVar[Sandbox]
    fresh: ClassVar[Callable[[], str]]  # the address of a furnished ledger without a job
    came_to: ClassVar[Counter[str]]

    @initialize()
    def begin(self) -> None:
        self.open = ExitStack()
        self.system = self.open.enter_context(at_work(self.service, type(self).fresh()))
        self.payments = Payments(self.system)
        self.questions: dict[str, Question] = {}
        self.by_token: dict[str, Question] = {}
        self.asked_by: dict[str, str] = {}  # whom a job is of
        self.accepted: dict[str, int] = {}  # at which event
        self.revoked: dict[str, int] = {}
        self.linked = set(PEOPLE)
        self.events = self.version = self.heard = self.booked = 0
        self.sent = False
        now = datetime.now(UTC)
        for name in PEOPLE:
            add = partial(ensure_principal, tenant="acme", kind=PrincipalKind.USER, now=now)
            self.write(partial(add, id=f"acme.{name}", name=name))
            link = partial(link_alias, tenant="acme", provider="slack", login=name, made_by="admin:test", now=now)
            self.write(partial(link, external_id=_slack(name), principal=f"acme.{name}"))
        self.change_the_policy()
        self.ask(LARGE, "ada")
        self.all_the_way()
        self.ask(SMALL, "grace")
        self.approve()

    def teardown(self) -> None:
        if hasattr(self, "open"):
            self.open.close()

    def write(self, change: Callable[..., Any]) -> Any:
        return self.system.runtime.database.write(change)

    # What happens

    @precondition(lambda self: len(self.asked_by) < 4)
    @rule(invoice=INVOICES, by=st.sampled_from(["ada", "grace"]))
    def ask(self, invoice: str, by: str) -> None:
        self.payments.ask(invoice, by=by)
        (job,) = [one for one in self.system.jobs() if one.id not in self.asked_by]
        self.asked_by[job.id], self.accepted[job.id] = f"acme.{by}", self.events

    @rule(dies=st.sampled_from([None, "before_call", "after_call", "after_commit"]))
    def work(self, dies: str | None) -> None:
        """Every job that is due gets a run; a worker may die in one of them."""
        if dies is not None:
            self.system.kill_at_next(dies)
        self.system.work_once()

    @rule()
    def settle(self) -> None:
        """Time passes, and work is done, until all jobs have ended or wait for people."""
        self.system.settle()

    @rule()
    def all_the_way(self) -> None:
        """What chance seldom comes to: whatever would be paid is approved and done."""
        self.approve()
        self.system.settle()

    @rule()
    def approve(self) -> None:
        """Whatever would be paid is asked for, and approved by all who can."""
        self.system.settle()
        self.check()
        for question in self.undecided():
            for name in PEOPLE:
                self._answer(question, name, yes=True, digest=question.digest)

    @precondition(lambda self: self.undecided())
    @rule(who=st.sampled_from(PEOPLE), yes=st.booleans() | st.just(True), which=st.integers(0, 3), astray=st.booleans())
    def answer(self, who: str, *, yes: bool, which: int, astray: bool) -> None:
        """Somebody answers a question; *astray*: to what was shown for the first of all."""
        undecided, first = self.undecided(), next(iter(self.questions.values()))
        question = undecided[which % len(undecided)]
        self._answer(question, who, yes=yes, digest=(first if astray else question).digest)

    def _answer(self, question: Question, name: str, *, yes: bool, digest: str) -> None:
        who = f"acme.{name}"
        given = Vote(
            approval=question.id,
            tenant="acme",
            principal=who,
            yes=yes,
            digest=digest,
            channel=Channel.SLACK,
            said_as=f"slack:{_slack(name)}",
            link=Link(provider="slack", user=_slack(name)),
        )
        if isinstance(self.system.runtime.approving.vote(given, now=datetime.now(UTC)), Counted):
            assert digest == question.digest, "an answer to something else counted"
            assert question.said.setdefault(who, yes) == yes, "an answer was taken back"

    @rule(invoice=INVOICES, amount=PRICES)
    def reprice(self, invoice: str, amount: str) -> None:
        """The vendor sends an invoice again, with another amount."""
        self.payments.sandbox.order("invoices", "reprice", tenant="acme", invoice=invoice, amount=amount)

    @precondition(lambda self: self.unsent())
    @rule(which=st.integers(0, 3), amount=PRICES)
    def read_otherwise(self, which: int, amount: str) -> None:
        """The next run of a job would pay another amount than the last, and the books agree with it."""
        unsent = self.unsent()
        read = unsent[which % len(unsent)]
        self.payments.sandbox.order("invoices", "reprice", tenant="acme", invoice=read.result["id"], amount=amount)
        change = update(steps).where(steps.c.id == read.id).values(result={**read.result, "amount": amount})
        self.write(lambda c: c.execute(change).rowcount)

    @rule(how=st.sampled_from(["drop_request", "drop_response", "status"]))
    def fail_the_next_payment(self, how: str) -> None:
        said = {"status": 503} if how == "status" else {}
        self.payments.order(endpoint="pay_invoice", mode=how, times=1, **said)

    @rule()
    def change_the_policy(self) -> None:
        self.version += 1
        apply(self.system, POLICY.format(number=self.version))

    @rule(who=st.sampled_from(["grace", "edsger"]))
    def revoke(self, who: str) -> None:
        """From now on, they have no word about what was accepted before."""
        self.system.revoke(ScopeKind.USER, f"acme.{who}", "acme")
        self.revoked[f"acme.{who}"] = self.events

    @precondition(lambda self: "barbara" in self.linked)
    @rule()
    def unlink(self) -> None:
        """It turns out that somebody else answers as barbara."""
        act = Act(audit_id=self.system.runtime.ids("aud"), by="admin:test", now=datetime.now(UTC))
        remove = partial(remove_alias, act=act, tenant="acme", provider="slack", principal="acme.barbara")
        self.write(partial(remove, external_id=_slack("barbara")))
        self.linked.remove("barbara")
        for question in self.questions.values():
            question.over |= question.said.get("acme.barbara", False) and not question.used

    @precondition(lambda self: any(job.state in CUT_SHORT for job in self.system.jobs()))
    @rule()
    def replay(self) -> None:
        """An operator has a job accepted anew: what was approved before is no answer to it."""
        job = next(job.id for job in self.system.jobs() if job.state in CUT_SHORT)
        self.write(partial(replay_job, job=job, by="cli:root", at=datetime.now(UTC)))
        self.accepted[job] = self.events
        for question in self.questions.values():
            question.over |= question.job == job

    @rule()
    def expire(self) -> None:
        """The time of every question is over."""
        late = update(approvals).values(expires_at=datetime.now(UTC) - timedelta(hours=1))
        self.write(lambda c: c.execute(late).rowcount)
        for question in self.questions.values():
            question.over |= not question.used

    @precondition(lambda self: self.sent)
    @rule(changed=st.sampled_from([{}, {"idempotency_key": "a-thief's"}, {"target": f"/v1/invoices/{OTHER}/pay"}]))
    def steal(self, changed: dict[str, str]) -> None:
        """A thief repeats the last request to pay, or sends its token with another."""
        self.check()
        with suppress(httpx.TransportError):  # the next payment may have been told to fail
            self.payments.replay(self.payments.stolen(), **changed)
        self.heard = len(self.payments.sandbox.read("invoices", "wire"))

    # What must hold

    @invariant()
    def check(self) -> None:
        """Whatever was issued, sent and moved since is what was shown and approved."""
        if not hasattr(self, "open"):
            return
        self.events += 1
        for row in self.system.rows(select(approvals).order_by(approvals.c.asked)):
            if row.id not in self.questions:
                self.questions[row.id] = _question(row, self.version)
        for token in self.payments.capabilities():
            if token.action == "invoices.PayInvoice" and token.jti not in self.by_token:
                self._issued(token)
        wire = self.payments.sandbox.read("invoices", "wire")
        for request in wire[self.heard :]:
            if request["target"].endswith("/pay"):
                self._sent(request)
        self.heard = len(wire)
        movements = self.payments.movements()
        for movement in movements[self.booked :]:
            self._moved(_payment(movement["invoice"], movement))
        self.booked = len(movements)

    def _issued(self, token: Any) -> None:
        """A capability is issued as its step opens: until then, everything about the approval has to hold."""
        question = [one for one in self.questions.values() if one.job == token.job_id][-1]
        limit = {"amount": token.limit_amount, "currency": token.limit_currency}
        assert question.payment == _payment(token.resource.removeprefix("invoices/"), limit), "not as shown"
        assert question.as_whom == token.principal_id, "as somebody else than shown"
        assert not question.over, "approved, but not any more"
        assert question.version == self.version, "approved under another policy"
        assert all(question.said.values()), "somebody said no"
        lost = {who for who, at in self.revoked.items() if at >= self.accepted[question.job]}
        approve = question.said.keys() - lost - {self.asked_by[question.job]}
        assert set(token.approved_by) <= approve, "somebody is named who does not approve"
        assert len(token.approved_by) >= 2, "too few people say yes"
        question.used = True
        self.by_token[token.jti] = question
        self.came_to["issued"] += 1

    def _sent(self, request: dict[str, str]) -> None:
        claims = _claims(request["authorization"])
        question = self.by_token[claims["jti"]]
        sent = _payment(request["target"].split("/")[-2], json.loads(request["body"]))
        assert (sent, claims["sub"]) == (question.payment, question.as_whom), "something else was sent than was shown"
        self.sent = True
        self.came_to["sent"] += 1

    def _moved(self, payment: tuple[str, Decimal, str]) -> None:
        approved = [one for one in self.by_token.values() if one.payment == payment and not one.moved]
        assert approved, "money moved that nobody had approved, or twice on one approval"
        approved[0].moved = True
        self.came_to["moved"] += 1

    # What is known

    def undecided(self) -> list[Question]:
        rows = self.system.rows(select(approvals.c.id).where(approvals.c.state == ApprovalState.OPEN))
        return [self.questions[row.id] for row in rows if row.id in self.questions]

    def unsent(self) -> list[Any]:
        """The reads of the jobs that have opened no payment."""
        opened = {row.job_id for row in self.system.steps() if row.position == 2}
        return [row for row in self.system.steps() if row.job_id not in opened and row.result]


def _slack(name: str) -> str:
    return f"U0{name.upper()}"


def _payment(invoice: str, money: Any) -> tuple[str, Decimal, str]:
    return invoice, Decimal(money["amount"]), money["currency"]


def _question(row: Any, version: int) -> Question:
    parameters = row.shown["parameters"]
    return Question(
        id=row.id,
        job=row.job_id,
        digest=row.digest,
        payment=_payment(parameters["id"], parameters),
        as_whom=row.shown["as_whom"]["id"],
        version=version,
    )


def _claims(authorization: str) -> dict[str, Any]:
    payload = authorization.split(".")[1]
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


@pytest.fixture
def on_sqlite(_service: Sandbox, _books: Path, tmp_path: Path) -> Iterator[None]:
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="aswhom-", dir=memory if memory.is_dir() else tmp_path))
    numbers = itertools.count(1)

    def fresh() -> str:
        return f"sqlite:///{shutil.copy(_books, folder / f'{next(numbers)}.sqlite')}"

    Paying.service, Paying.fresh = _service, staticmethod(fresh)
    yield
    shutil.rmtree(folder)


@pytest.fixture
def on_postgresql(_service: Sandbox, migrated_postgres: Emptied) -> Iterator[None]:
    def fresh() -> str:
        migrated_postgres.empty()
        furnish(_service, migrated_postgres.url)
        return migrated_postgres.url

    Paying.service, Paying.fresh = _service, staticmethod(fresh)
    yield
    migrated_postgres.empty()


def run(*, examples: int, slow: bool) -> None:
    """FAULTS_SEED repeats what a failure printed, with the same number of examples."""
    Paying.came_to = Counter()
    machine = seed(seed_of(slow=slow))(type("Paying", (Paying,), {}))
    how = settings(
        max_examples=examples,
        stateful_step_count=15,
        derandomize=False,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate] if IN_CONTROL else list(Phase),
    )
    run_state_machine_as_test(machine, settings=how)
    assert Paying.came_to["moved"] > examples, "only what begins each sequence was paid"


@pytest.mark.usefixtures("on_sqlite")
def test_no_sequence_of_events_moves_money_otherwise_than_people_were_shown_it() -> None:
    run(examples=10, slow=False)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("on_sqlite")
def test_hundreds_of_sequences_move_money_as_people_were_shown_it() -> None:
    run(examples=150, slow=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("on_postgresql")
def test_dozens_of_sequences_move_money_as_people_were_shown_it_on_postgresql() -> None:
    run(examples=25, slow=True)
