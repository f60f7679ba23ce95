"""Billing, sales and support at work, in a worker's runtime, and who did what by the upstreams' own logs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, delete, update

from deploy.demo.provision import SALESFORCE, STRIPE_SCOPES
from identity.accounts.states import find_account
from identity.model import AccountKey, AccountState
from identity.tables import accounts, grants, provider_connections
from pipeline.action import Response
from pipeline.states import AttemptState, JobState, StepState, Wait
from tasks.actions import stripe
from tasks.billing_reconciliation import difference
from tests.tasks.in_process_system import InProcessSystem
from tests.tasks.scenes import deal, opportunity


def held(system: InProcessSystem, row: dict[str, Any]) -> dict[str, Any]:
    (found,) = [one for one in system.sandbox.read("salesforce", "opportunities") if one["Id"] == row["id"]]
    return dict(found)


def test_an_opportunity_is_updated_as_its_owner_after_her_session_ended(system: InProcessSystem) -> None:
    """Her access token is over by the organization's settings, which no answer told us of: a 401 does."""
    system.connect_seller("acme", "ada")
    row = opportunity(system)
    system.sandbox.order("auth", "expire", provider="salesforce", user="ada")
    system.report("acme", "deal.changed", deal(row, amount=12_000, next_step="Send the contract"))
    (job,) = system.settle()
    assert (job.state, job.user_id, job.pattern) == (JobState.DONE, "acme.ada", "delegated")
    after = held(system, row)
    assert (after["StageName"], after["Amount"], after["NextStep"]) == ("Closed Won", 12_000, "Send the contract")
    assert after["LastModifiedById"] == row["owner"]
    assert system.authors() == [("salesforce", "ada", "user")]
    assert [attempt.state for attempt in system.attempts()] == [
        AttemptState.NO_EFFECT,  # the token was refused, and renewed
        AttemptState.EFFECT,
        AttemptState.EFFECT,
    ]


def test_a_persons_newer_word_stands(system: InProcessSystem) -> None:
    system.connect_seller("acme", "ada")
    row = opportunity(system)
    hours_ago = datetime.now(UTC) - timedelta(hours=9)
    before = held(system, row)["StageName"]
    system.sandbox.order("salesforce", f"opportunities/{row['id']}", StageName="Closed Lost", Amount=0)
    there_was_none = deal(row, stage="Closed Lost", amount=12_000, previous={"amount": None})
    for data in (deal(row), deal(row, previous={"stage": before}), there_was_none):
        system.report("acme", "deal.changed", data, at=hours_ago)
    assert [job.state for job in system.settle()] == [JobState.DONE] * 3
    assert (held(system, row)["StageName"], held(system, row)["Amount"]) == ("Closed Lost", 0)
    assert system.authors() == []


def test_an_owner_whom_nobody_linked_is_refused_and_nothing_is_written(system: InProcessSystem) -> None:
    system.report("acme", "deal.changed", deal(opportunity(system)))
    (job,) = system.settle()
    assert job.state == JobState.DEAD
    assert "StepRefused" in job.reason
    assert [(step.action, step.state) for step in system.steps()] == [("salesforce.GetOpportunity", StepState.REFUSED)]
    assert system.attempts() == []


def test_her_job_waits_until_she_connects_again(system: InProcessSystem) -> None:
    system.connect_seller("acme", "ada")
    row = opportunity(system)
    system.sandbox.order("auth", "revoke", provider="salesforce", user="ada")
    system.report("acme", "deal.changed", deal(row))
    (job,) = system.settle()
    assert (job.state, job.wait) == (JobState.WAITING, Wait.CONSENT)
    system.connect_seller("acme", "ada")
    (job,) = system.settle()
    assert job.state == JobState.DONE
    assert system.authors() == [("salesforce", "ada", "user")]


@pytest.mark.parametrize(
    ("granted", "listed"),
    [(["refresh_token"], ["api", "refresh_token", "full"]), (None, ["refresh_token"])],
    ids=["her consent holds", "she has not consented"],
)
def test_the_link_of_a_wait_asks_the_provider_for_what_she_granted_and_what_the_step_lacks(
    system: InProcessSystem, granted: list[str] | None, listed: list[str]
) -> None:
    """A consent replaces the one before. What is listed is asked for too, if none holds; the step lacks `api`."""
    ada = AccountKey(tenant="acme", connection=SALESFORCE, principal="acme.ada")
    system.connect_seller("acme", "ada")

    def prepare(c: Connection) -> None:
        c.execute(update(provider_connections).where(provider_connections.c.id == SALESFORCE).values(scopes=listed))
        account = find_account(c, ada)
        assert account is not None
        if granted is None:
            c.execute(delete(grants).where(grants.c.account_id == account.id))
            c.execute(update(accounts).where(accounts.c.id == account.id).values(state=AccountState.PENDING))
        else:
            c.execute(update(grants).where(grants.c.account_id == account.id).values(scopes=granted))

    system.runtime.database.write(prepare)
    system.report("acme", "deal.changed", deal(opportunity(system)))
    (job,) = system.settle()
    assert (job.state, job.wait, job.lacks) == (JobState.WAITING, Wait.CONSENT, ["api"])
    made = system.runtime.invitations.link(ada, by="cli:test", now=datetime.now(UTC))
    asked = system.follow(made.url.rpartition("/")[2], "ada", SALESFORCE).params["scope"]
    assert asked.split() == ["refresh_token", "api"]
    (job,) = system.settle()
    assert job.state == JobState.DONE


@pytest.mark.parametrize("older_first", [True, False])
def test_of_two_changes_that_waited_for_one_consent_the_newer_stands(
    system: InProcessSystem, older_first: bool
) -> None:
    """What is written first makes the opportunity younger than both, and Salesforce does not say through whom."""
    system.connect_seller("acme", "ada")
    row = opportunity(system)
    system.sandbox.order("salesforce", f"opportunities/{row['id']}", StageName="Prospecting", Amount=10_000.0)
    now = datetime.now(UTC)
    system.sandbox.order("auth", "revoke", provider="salesforce", user="ada")
    older = deal(row, stage="Qualification", previous={"stage": "Prospecting"})
    newer = deal(row, amount=12_000, previous={"stage": "Qualification", "amount": 10_000})
    told = [(older, now), (newer, now + timedelta(microseconds=1))]
    for data, at in told if older_first else reversed(told):
        system.report("acme", "deal.changed", data, at=at)
    assert {(job.state, job.wait) for job in system.settle()} == {(JobState.WAITING, Wait.CONSENT)}
    system.connect_seller("acme", "ada")
    assert {job.state for job in system.settle()} == {JobState.DONE}
    assert (held(system, row)["StageName"], held(system, row)["Amount"]) == ("Closed Won", 12_000)
    assert len(system.authors()) == (2 if older_first else 1)


def notes(system: InProcessSystem, tenant: str) -> list[str | None]:
    rows = system.sandbox.read("stripe", "subscriptions")[tenant]
    return [row["metadata"].get("aswhom_reconciliation") for row in rows]


def test_the_restricted_key_may_do_what_its_workflow_does_and_nothing_else(system: InProcessSystem) -> None:
    uses = system.registry.get("billing_reconciliation").uses
    needed = {scope for action in uses if action.facts.provider == "stripe" for scope in action.facts.scopes}
    assert needed == set(STRIPE_SCOPES) == {"subscriptions:read", "invoices:read", "subscriptions:write"}
    for account in system.sandbox.world["stripe"]["accounts"]:
        assert sorted(account["permissions"]) == sorted(STRIPE_SCOPES)


def test_differences_are_written_by_the_tenants_restricted_key(system: InProcessSystem) -> None:
    due = datetime.now(UTC) - timedelta(minutes=1)
    system.night("acme", "billing_reconciliation", due=due)
    (job,) = system.settle()
    assert (job.state, job.pattern, job.user_id) == (JobState.DONE, "service", None)
    (account,) = [row for row in system.sandbox.world["stripe"]["accounts"] if row["tenant"] == "acme"]
    assert system.authors() == [("stripe", account["id"], "key")] * 2
    assert notes(system, "acme") == [
        None,
        None,
        "agreed 14700, invoiced 9800 eur",
        None,
        None,
        "agreed 29400, invoiced 24500 eur",
        None,
    ]
    assert notes(system, "globex") == [None] * 7
    # Seven subscriptions, three a page: a step a page, and one a difference.
    assert [step.action for step in system.steps()] == [
        "stripe.ListSubscriptions",
        "stripe.AnnotateSubscription",
        "stripe.ListSubscriptions",
        "stripe.AnnotateSubscription",
        "stripe.ListSubscriptions",
    ]
    system.night("acme", "billing_reconciliation", due=due + timedelta(seconds=1))
    system.settle()
    assert len(system.authors()) == 2  # what is written already is not written again


@pytest.mark.parametrize(
    ("price", "more"),
    [
        ({"unit_amount": None, "billing_scheme": "tiered"}, {"quantity": 5}),
        ({"unit_amount": None, "unit_amount_decimal": "0.5"}, {"quantity": 5}),
        ({"unit_amount": 4900, "transform_quantity": {"divide_by": 10, "round": "up"}}, {"quantity": 5}),
        ({"unit_amount": 4900, "recurring": {"usage_type": "metered"}}, {}),
    ],
    ids=["tiered", "decimal", "in-packages", "metered"],
)
def test_what_is_not_an_amount_times_a_quantity_is_held_against_no_invoice(
    price: dict[str, Any], more: dict[str, Any]
) -> None:
    fixed = {"price": {"unit_amount": 4900}, "quantity": 2}
    for items, agreed, note in (
        ([fixed, fixed], 19_600, "agreed 19600, invoiced 100 eur"),
        ([fixed, {"price": price, **more}], None, None),
    ):
        row = {
            "id": "sub_1",
            "status": "active",
            "currency": "eur",
            "items": {"data": items},
            "latest_invoice": {"subtotal": 100},
            "metadata": {},
        }
        body = json.dumps({"data": [row], "has_more": False}).encode()
        (one,) = stripe.ListSubscriptions().read(Response(status=200, headers={}, body=body)).subscriptions
        assert (one.agreed, difference(one, tolerance=0)) == (agreed, note)


@pytest.mark.parametrize(
    ("agreed", "invoiced", "said", "note"),
    [
        (100, 100, "agreed 100, invoiced 90 eur", "settled"),
        (100, 100, "not compared", "settled"),
        (None, 100, "agreed 100, invoiced 90 eur", "not compared"),
        (100, None, "agreed 100, invoiced 90 eur", "not compared"),
        (None, 100, "not compared", None),
        (None, 100, "settled", None),
        (None, 100, None, None),
    ],
)
def test_a_difference_is_settled_only_where_it_was_looked_for(
    agreed: int | None, invoiced: int | None, said: str | None, note: str | None
) -> None:
    one = stripe.Subscription(id="sub_1", currency="eur", agreed=agreed, invoiced=invoiced, note=said)
    assert difference(one, tolerance=0) == note


@pytest.mark.parametrize(
    ("status", "note"),
    [
        ("active", "agreed 100, invoiced 90 eur"),
        ("past_due", "agreed 100, invoiced 90 eur"),
        ("unpaid", "agreed 100, invoiced 90 eur"),
        ("trialing", "not compared"),
        ("paused", "not compared"),
    ],
)
def test_what_is_not_invoiced_for_what_was_agreed_is_not_compared(status: str, note: str) -> None:
    said = "agreed 100, invoiced 80 eur"
    one = stripe.Subscription(id="sub_1", status=status, currency="eur", agreed=100, invoiced=90, note=said)
    assert difference(one, tolerance=0) == note


def test_a_subscription_is_looked_at_until_it_is_canceled(system: InProcessSystem) -> None:
    """Of those that differ, one is overdue and one canceled."""
    due = datetime.now(UTC) - timedelta(minutes=1)
    rows = system.sandbox.read("stripe", "subscriptions")["acme"]
    system.sandbox.order("stripe", f"subscriptions/{rows[2]['id']}", status="past_due")
    system.sandbox.order("stripe", f"subscriptions/{rows[5]['id']}", status="canceled")
    system.night("acme", "billing_reconciliation", due=due)
    (job,) = system.settle()
    assert job.state == JobState.DONE
    assert notes(system, "acme") == [None, None, "agreed 14700, invoiced 9800 eur", None, None, None, None]
    system.sandbox.order("stripe", f"subscriptions/{rows[2]['id']}", status="trialing")
    system.night("acme", "billing_reconciliation", due=due + timedelta(seconds=1))
    system.settle()
    assert notes(system, "acme")[2] == "not compared"


def test_missed_nights_are_made_up_for_once(system: InProcessSystem) -> None:
    three_nights_ago = datetime.now(UTC) - timedelta(days=3)
    system.night("globex", "billing_reconciliation", due=three_nights_ago)
    system.runtime.schedules.fire_due(datetime.now(UTC))
    (job,) = system.settle()
    assert job.state == JobState.DONE
    assert len(system.authors()) == 2


def incident(**more: Any) -> dict[str, Any]:
    return {"reference": "inc-1", "customer": "Umbrella", "subject": "It hurts", "description": "Here."} | more


def tickets(system: InProcessSystem, tenant: str) -> list[dict[str, Any]]:
    return list(system.sandbox.read("zendesk", "tickets")[tenant])


def test_an_incident_becomes_one_ticket_however_often_it_is_reported(system: InProcessSystem) -> None:
    before = len(tickets(system, "acme"))
    for _ in range(3):
        system.report("acme", "incident.reported", incident(severity="high"))
    assert {job.state for job in system.settle()} == {JobState.DONE}
    (ticket,) = tickets(system, "acme")[before:]
    assert (ticket["subject"], ticket["priority"], ticket["tags"]) == ("It hurts", "high", ["aswhom"])
    assert ticket["description"] == "Umbrella reports:\n\nHere."
    assert system.authors() == [("zendesk", "aswhom", "app")]


def test_an_incident_that_is_reported_otherwise_later_has_its_ticket(system: InProcessSystem) -> None:
    before = len(tickets(system, "acme"))
    system.report("acme", "incident.reported", incident(severity="low"))
    system.settle()
    system.report("acme", "incident.reported", incident(severity="urgent", description="Everywhere."))
    assert {job.state for job in system.settle()} == {JobState.DONE}
    assert [ticket["priority"] for ticket in tickets(system, "acme")[before:]] == ["low"]
    assert {step.state for step in system.steps()} == {StepState.DONE, StepState.REFUSED}


def test_a_ticket_is_tried_for_hours_beyond_the_attempts_that_are_set(system: InProcessSystem) -> None:
    """Four attempts are set; the help desk is away for thirty."""
    system.sandbox.order("zendesk", "faults", mode="status", status=503, times=30)
    system.report("acme", "incident.reported", incident(reference="inc-2"))
    (job,) = system.settle()
    assert job.state == JobState.DONE
    assert len(system.attempts()) == 31
    assert system.authors() == [("zendesk", "aswhom", "app")]


def hourly(system: InProcessSystem, *, times: int) -> list[timedelta]:
    """The help desk is away for so many hours; how long after the first attempt each was made."""
    away = {"Retry-After": "3600"}
    system.sandbox.order("zendesk", "faults", mode="status", status=503, headers=away, times=times)
    system.report("acme", "incident.reported", incident(reference="inc-4"))
    system.settle()
    made = [attempt.opened_at for attempt in system.attempts()]
    return [at - made[0] for at in made]


def test_a_help_desk_that_is_away_for_eleven_hours_gets_its_ticket(system: InProcessSystem) -> None:
    assert hourly(system, times=11)[-1] >= timedelta(hours=11)
    (job,) = system.jobs()
    assert job.state == JobState.DONE, job.reason
    assert system.authors() == [("zendesk", "aswhom", "app")]


def test_a_ticket_is_given_up_after_the_hours_that_are_set(system: InProcessSystem) -> None:
    made = hourly(system, times=40)
    assert len(made) == 13
    assert timedelta(hours=12) <= made[-1] < timedelta(hours=13)
    (job,) = system.jobs()
    assert job.state == JobState.DEAD
    assert "zendesk.CreateTicket" in job.reason
    assert "503" in job.reason
    assert system.authors() == []


def test_between_two_attempts_the_job_waits_in_the_ledger(system: InProcessSystem) -> None:
    system.sandbox.order("zendesk", "faults", mode="status", status=429, headers={"Retry-After": "3600"})
    system.report("acme", "incident.reported", incident(reference="inc-3"))
    system.work_once()
    (job,) = system.jobs()
    assert job.state == JobState.QUEUED
    assert job.due_at - datetime.now(UTC) > timedelta(minutes=59)
