"""A step that opens by a capability: under the rule, with the intent, without an account; on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, Row, select

from identity.accounts.stops import set_stopped
from identity.audit import Act
from identity.audit.tables import audit
from identity.capability import spending
from identity.capability.model import CapabilityRequest, Outcome
from identity.capability.tables import capabilities
from identity.connections.registry import add_connection, get_connection
from identity.errors import Misconfigured
from identity.model import AccessPattern, PrincipalKind, Scope, ScopeKind
from identity.policy.decision import Decision
from pipeline.db.database import Database
from pipeline.desk import connections as acts
from pipeline.jobs.claims import ClaimedJob
from pipeline.jobs.intents import Ended, Intent, Opened
from pipeline.states import AttemptState, JobState, StepState
from pipeline.steps import openings
from pipeline.steps import stored as ledger_steps
from pipeline.steps.closings import Closing, close_attempt
from pipeline.steps.replay import replay_job
from pipeline.tables import attempts
from tests.capability.capability_ledger import INVOICES, PAID, revoke
from tests.ledger.house import House, intent_of
from tests.ledgers import open_ledger

BY_CAPABILITY = Decision(
    kind=PrincipalKind.USER, pattern=AccessPattern.CAPABILITY, reason="named by the workflow", policy=0
)


class Till:
    """One job of acme's, whose first step pays."""

    def __init__(self, database: Database) -> None:
        self.house = House(database)
        self.house.build()
        self.database = database
        self.job: ClaimedJob = self.house.claim(self.house.job())
        self.step = self.house.ids("step")

    def intent(self, **more: Any) -> Intent:
        wanted = CapabilityRequest(
            id=self.house.ids("cap"),
            audience=INVOICES,
            tenant="acme",
            connection="gh",
            agent=self.job.agent,
            principal="acme.ada",
            accepted=self.job.accepted,
            job=self.job.id,
            step=self.step,
            action="invoices.PayInvoice",
            resource="invoices/inv_7",
            limit=None,
            request_sha256=PAID,
            lifetime=more.pop("lifetime", timedelta(seconds=120)),
            approved_by=more.pop("approved_by", ()),
        )
        base = intent_of(self.house, self.job, step=self.step, action="invoices.PayInvoice", decision=BY_CAPABILITY)
        return replace(base, capability=wanted, attempt=self.house.ids("att"), **more)

    def open(self, intent: Intent) -> Any:
        return self.database.write(partial(openings.open_attempt, intent=intent))

    def close(self, intent: Intent, state: AttemptState, to: StepState, **more: Any) -> None:
        closing = Closing(attempt=intent.attempt, state=state, step_state=to, **more)
        self.database.write(partial(close_attempt, intent=intent, closing=closing))

    def lose(self, intent: Intent) -> None:
        """No answer came, and its time has passed."""
        self.close(intent, AttemptState.UNKNOWN, StepState.UNKNOWN)

    def rows(self) -> list[Row[Any]]:
        ordered = select(capabilities).order_by(capabilities.c.jti)
        return list(self.database.read(lambda c: c.execute(ordered).all()))


@pytest.fixture
def till(ledger_url: str) -> Iterator[Till]:
    database = open_ledger(ledger_url)
    yield Till(database)
    database.close()


def test_it_opens_with_a_recorded_capability_and_nobodys_account(till: Till) -> None:
    intent = till.intent()
    opened = till.open(intent)
    assert isinstance(opened, Opened)
    assert opened.lease is None
    assert opened.capability is not None
    (row,) = till.rows()
    assert (row.jti, row.step_id, row.job_id, row.accepted) == (
        opened.capability.id,
        till.step,
        till.job.id,
        till.job.accepted,
    )
    (attempt,) = till.database.read(lambda c: c.execute(select(attempts)).all())
    assert (attempt.account_id, attempt.generation, attempt.principal_id) == ("", 0, "acme.ada")
    said = select(audit).where(audit.c.kind == "attempt.opened")
    (record,) = till.database.read(lambda c: c.execute(said).all())
    assert (record.attempt_id, record.account_id, record.pattern) == (intent.attempt, None, "capability")
    assert record.detail["capability"] == row.jti


def test_what_is_decided_for_a_capability_opens_by_nothing_else(till: Till) -> None:
    with pytest.raises(Misconfigured, match="none is wanted for it"):
        till.open(replace(till.intent(), capability=None))
    assert till.database.read(lambda c: c.execute(select(attempts)).all()) == []


@pytest.mark.parametrize(
    "scope",
    [
        Scope(kind=ScopeKind.TENANT, key="acme"),
        Scope(kind=ScopeKind.CONNECTION, key="gh"),
        Scope(kind=ScopeKind.AGENT, key="tester"),
        Scope(kind=ScopeKind.USER, key="acme.ada"),
        Scope(kind=ScopeKind.ACCOUNT, key="acme/gh/acme.ada"),
    ],
    ids=lambda scope: str(scope.kind),
)
def test_a_job_from_before_a_revocation_gets_none(till: Till, scope: Scope) -> None:
    till.database.write(partial(revoke, scope=scope))
    ended = till.open(till.intent())
    assert isinstance(ended, Ended)
    assert ended.moved is JobState.CANCELLED
    assert till.rows() == []


def test_a_user_who_is_stopped_has_no_job_open_by_a_capability_whenever_it_was_accepted(till: Till) -> None:
    ada, act = Scope(kind=ScopeKind.USER, key="acme.ada"), Act(audit_id="aud_1", by="root", now=datetime.now(UTC))
    till.database.write(partial(set_stopped, scope=ada, act=act, stopped=True, tenant="acme"))
    till.job = till.house.claim(till.house.job())
    assert isinstance(till.open(till.intent()), Ended)
    assert till.rows() == []
    (stopped,) = till.database.read(lambda c: c.execute(select(audit).where(audit.c.kind == "scope.stopped")).all())
    assert stopped.on_behalf_of == "acme.ada"


def test_a_job_whose_connection_was_removed_since_its_run_began_gets_none_and_looks_again(till: Till) -> None:
    """Stopped or not: the stop ends with the connection, and there was none of a connection that nobody used."""
    asked = till.intent()
    assert asked.capability is not None
    through = partial(replace, connection="spare")
    asked = replace(through(asked), capability=through(asked.capability), lease=through(asked.lease))
    by = Act(audit_id="aud-spare", by="test", now=datetime.now(UTC))

    def add_and_remove(c: Connection) -> None:
        spare = replace(get_connection(c, "gh"), id="spare", tenant="acme", provider="invoices")
        add_connection(c, spare, now=by.now)
        set_stopped(c, Scope(kind=ScopeKind.CONNECTION, key="spare"), by, stopped=True, tenant="acme")
        acts.remove(c, "spare", replace(by, audit_id="aud-removed"))

    till.database.write(add_and_remove)
    ended = till.open(asked)
    assert isinstance(ended, Ended)
    assert (ended.moved, ended.reason) == (JobState.QUEUED, "provider connection spare was removed: it looks again")
    assert till.rows() == []
    assert till.database.read(lambda c: c.execute(select(attempts)).all()) == []


def test_the_same_one_is_sent_again_while_nobody_knows_and_closed_once_it_is_known(till: Till) -> None:
    first = till.intent()
    opened = till.open(first)
    till.lose(first)
    second = till.intent(again=True, resends=True, repeats_unknown=True)
    again = till.open(second)
    assert again.capability == opened.capability
    till.close(second, AttemptState.EFFECT, StepState.DONE, result={}, resolves=AttemptState.ADOPTED)
    (row,) = till.rows()
    assert row.outcome == Outcome.EFFECT
    assert row.closed_at is not None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"lifetime": timedelta(seconds=1)}, {}),
        ({"approved_by": ("acme.grace",)}, {"approved_by": ("acme.edsger",)}),
    ],
    ids=["expired", "approved by others since"],
)
def test_one_that_expired_or_that_others_have_approved_since_is_not_sent_again(
    till: Till, first: dict[str, Any], second: dict[str, Any]
) -> None:
    sent = till.intent(**first)
    till.open(sent)
    till.lose(sent)
    ended = till.open(till.intent(again=True, resends=True, repeats_unknown=True, **second))
    assert isinstance(ended, Ended)
    assert ended.moved is JobState.QUEUED
    assert len(till.rows()) == 1
    (attempt,) = till.database.read(partial(ledger_steps.attempts_of, step=till.step))
    assert attempt.id == sent.attempt


def test_after_a_revocation_and_a_replay_another_is_issued_which_can_be_spent(till: Till) -> None:
    """The first stays revoked: work that a person has just had accepted is not refused for what came before it."""
    sent = till.intent()
    first = till.open(sent).capability
    till.lose(sent)
    scope = Scope(kind=ScopeKind.USER, key="acme.ada")
    till.database.write(partial(revoke, scope=scope))
    assert till.open(till.intent(again=True, repeats_unknown=True)).moved is JobState.CANCELLED
    till.database.write(partial(replay_job, job=till.job.id, by="cli:grace", at=datetime.now(UTC)))
    till.job = till.house.claim(till.job.id)

    again = till.open(till.intent(again=True, resends=True, repeats_unknown=True))
    assert isinstance(again, Ended), "what was sent is not sent again"
    till.job = till.house.claim(till.job.id)
    second = till.open(till.intent(again=True, repeats_unknown=True)).capability
    assert second.id != first.id
    assert [row.outcome for row in till.rows()] == [Outcome.SUPERSEDED, None]

    spend = partial(spending.spend, by=INVOICES, request_sha256=PAID)
    assert isinstance(till.database.write(partial(spend, claimed=second)), spending.Spent)
    refused = till.database.write(partial(spend, claimed=first))
    assert isinstance(refused, spending.NotSpent)
    assert refused.why is spending.Unspendable.REVOKED


def test_without_effect_the_next_attempt_gets_another(till: Till) -> None:
    first = till.intent()
    till.open(first)
    till.close(first, AttemptState.NO_EFFECT, StepState.OPEN, error="status 503")
    second = till.open(till.intent(again=True))
    assert [row.outcome for row in till.rows()] == [Outcome.NO_EFFECT, None]
    assert second.capability.id == till.rows()[1].jti
