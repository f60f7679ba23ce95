"""A model names the amount: an agent asks for a payment by the API, and what it makes up pays nothing."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import delete

from identity.agents.api_keys import NewApiKey, Role, add_key, new_key
from identity.agents.tables import api_keys
from identity.secret import Secret
from pipeline.states import JobState
from tests.ledgers import MOSTLY_SQLITE
from tests.payments.conftest import at_work
from tests.payments.payments import HUGE, LARGE, OTHER, SMALL, Payments
from tests.sandbox.driver import Sandbox
from tests.tasks.approvals import apply, asked
from tests.tasks.in_process_system import InProcessSystem
from tests.webhooks.parts import MemoryLedger, MemoryRing
from webhooks.api.app import Agents
from webhooks.app import create_app
from webhooks.quota import Quota
from webhooks.settings import WebSettings

pytestmark = MOSTLY_SQLITE

POLICY = """
format = 1

[[allow]]
name = "invoices"
when = { action = "invoices.PayInvoice" }
limit = "50000 EUR"

[[rule]]
name = "a second person over 1,000"
when = { action = "invoices.PayInvoice" }
above = "1000 EUR"
approval = { approvers = ["ada", "grace"], held_keys_only = true }
"""


class Asking:
    """Acme's agent, with a key."""

    def __init__(self, system: InProcessSystem) -> None:
        self.system = system
        self.payments = Payments(system)
        runtime = system.runtime
        app = create_app(
            WebSettings(base_url=runtime.settings.base_url),
            MemoryLedger(),
            runtime.workflows,
            MemoryRing(),
            agents=Agents(
                requests=runtime.requests,
                invitations=runtime.invitations,
                workflows=runtime.workflows,
                quota=Quota(1000, None),
            ),
        )
        self.client = app.test_client()

    def key(self, *, held_by: str | None = None, made_by: str = "cli:root", role: Role = Role.AGENT) -> Secret:
        secret, now = new_key(secrets.token_urlsafe(32)), datetime.now(UTC)
        id, end = self.system.runtime.ids("key"), now + timedelta(days=1)
        whose = partial(NewApiKey, tenant="acme", agent="acme.bot", role=role, tools=None, users=None, held_by=held_by)
        new = whose(id=id, expires_at=end)
        self.system.runtime.database.write(partial(add_key, secret=secret, new=new, by=made_by, now=now))
        return secret

    def pay(self, invoice: str, amount: object, currency: str = "EUR", *, key: Secret | None = None) -> Any:
        """What the model wrote, as ada."""
        key = key or self.key(held_by="acme.ada")
        body = {"identifier": "ada", "parameters": {"id": invoice, "amount": amount, "currency": currency}, "wait": 0}
        headers = {"Authorization": f"Bearer {key.reveal()}"}
        return self.client.post("/v1/tools/invoices.PayInvoice/execute", json=body, headers=headers)

    def act(self, job: str, verb: str, key: Secret) -> int:
        headers = {"Authorization": f"Bearer {key.reveal()}"}
        status: int = self.client.post(f"/v1/jobs/{job}/{verb}", json={}, headers=headers).status_code
        return status

    def settled(self, invoice: str, amount: object, currency: str = "EUR", *, key: Secret | None = None) -> Any:
        """The job that comes of it."""
        answer = self.pay(invoice, amount, currency, key=key)
        assert answer.status_code == 202, answer.text
        return self.system.settle()[-1]

    def paid(self) -> list[tuple[str, str]]:
        return [(one["invoice"], one["amount"]) for one in self.payments.movements()]


@pytest.fixture
def agent(_service: Sandbox, ledger_url: str) -> Iterator[Asking]:
    with at_work(_service, ledger_url, workflows=("tasks.actions.invoices",)) as system:
        apply(system, POLICY)
        yield Asking(system)


def test_below_the_threshold_an_agent_pays_what_the_invoice_asks_for(agent: Asking) -> None:
    job = agent.settled(SMALL, "480.00")
    assert job.state == JobState.DONE, job.reason
    assert agent.paid() == [(SMALL, "480.00")]


def test_above_it_a_person_is_shown_what_the_agent_named_and_not_what_the_books_say(agent: Asking) -> None:
    job = agent.settled(LARGE, "9999.00")  # it is 12,500
    assert job.wait == "approval", job.reason
    shown = asked(agent.system).shown
    assert (shown["amount"], shown["resource"]) == ("9999.00 EUR", f"invoice {LARGE}")
    assert agent.payments.answer(by="grace").status_code == 200
    (job,) = agent.system.settle()
    assert (job.state, "wrong_amount" in job.reason) == (JobState.DEAD, True)
    assert agent.paid() == []


def test_an_amount_that_is_approved_and_the_invoices_own_is_paid_once(agent: Asking) -> None:
    agent.settled(LARGE, "12500.00")
    assert agent.payments.answer(by="grace").status_code == 200
    (job,) = agent.system.settle()
    assert job.state == JobState.DONE, job.reason
    assert agent.paid() == [(LARGE, "12500.00")]


def test_beyond_the_limit_or_in_another_currency_nothing_is_issued(agent: Asking) -> None:
    for amount, currency in (("980000.00", "EUR"), ("480.00", "USD")):
        job = agent.settled(HUGE, amount, currency)
        assert job.state == JobState.DEAD
        assert f"is for {amount} {currency}" in job.reason
    assert agent.payments.capabilities() == []


def test_an_amount_below_what_wants_approval_does_not_pay_a_dearer_invoice(agent: Asking) -> None:
    """A model is talked into naming a small amount, so that nobody is asked: the service wants its invoice's own."""
    job = agent.settled(LARGE, "999.00")
    assert (job.state, "wrong_amount" in job.reason) == (JobState.DEAD, True)
    assert agent.paid() == []


@pytest.mark.parametrize("amount", [-1, 0, "-480.00", "12,500", "480.001", "NaN", "1e40", "480 EUR", None, [480]])
def test_what_is_no_amount_is_refused_before_anything_is_stored(agent: Asking, amount: object) -> None:
    assert agent.pay(SMALL, amount).status_code == 422
    assert agent.system.jobs() == []


@pytest.mark.parametrize(
    ("invoice", "currency"), [("inv_1001/../inv_1002", "EUR"), ("inv_1001?x", "EUR"), (SMALL, "eur"), (SMALL, "€")]
)
def test_what_fits_no_parameter_is_refused_before_anything_is_stored(
    agent: Asking, invoice: str, currency: str
) -> None:
    assert agent.pay(invoice, "480.00", currency).status_code == 422
    assert agent.system.jobs() == []


@pytest.mark.parametrize("whose", [{"held_by": "acme.grace"}, {"held_by": "acme.ada", "made_by": "cli:grace"}])
def test_whoever_may_have_the_key_does_not_approve_what_it_asks_for_in_anothers_name(
    agent: Asking, whose: dict[str, Any]
) -> None:
    """Grace, an approver, has the agent's key and writes ada's name: ada is barred, and so is grace."""
    job = agent.settled(LARGE, "12500.00", key=agent.key(**whose))
    assert (job.state, job.user_id) == (JobState.DEAD, "acme.ada")
    assert "wants 1 to approve invoices.PayInvoice, and 0 of those it names can: whoever asked may not" in job.reason
    assert agent.paid() == []


def test_a_rule_may_refuse_what_a_key_asks_for_that_nobody_is_said_to_hold(agent: Asking) -> None:
    job = agent.settled(LARGE, "12500.00", key=agent.key())
    assert job.state == JobState.DEAD
    assert "only for keys that a user is said to hold" in job.reason
    assert "`aswhom api-keys add --held-by`" in job.reason
    assert agent.paid() == []
    unapproved = agent.settled(OTHER, "960.50", key=agent.key())
    assert unapproved.state == JobState.DONE, unapproved.reason


@pytest.mark.parametrize(
    ("whose", "why"),
    [
        ({"held_by": "acme.grace"}, "whoever asked may not"),
        ({"held_by": "acme.ada", "made_by": "cli:grace"}, "whoever asked may not"),
        ({"held_by": None}, "only for keys that a user is said to hold"),
    ],
)
def test_nor_does_whoever_may_have_the_key_by_which_it_is_accepted_anew(
    agent: Asking, whose: dict[str, Any], why: str
) -> None:
    """Of a key that names no holder it is not known who that is."""
    key = agent.key(held_by="acme.ada")
    job = agent.settled(LARGE, "12500.00", key=key)
    assert job.wait == "approval", job.reason
    assert agent.act(job.id, "cancel", key) == 200
    assert agent.act(job.id, "replay", agent.key(role=Role.ADMIN, **whose)) == 202
    again = agent.system.settle()[-1]
    assert (again.id, again.state) == (job.id, JobState.DEAD)
    assert why in again.reason
    assert agent.paid() == []


def test_whose_key_it_was_is_known_when_the_key_is_forgotten(agent: Asking) -> None:
    key = agent.key(held_by="acme.ada")
    assert agent.pay(LARGE, "12500.00", key=key).status_code == 202
    agent.system.runtime.database.write(lambda c: c.execute(delete(api_keys)).rowcount)
    job = agent.system.settle()[-1]
    assert job.wait == "approval", job.reason
