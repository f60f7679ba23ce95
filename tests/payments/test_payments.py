"""An invoice is paid once, by a capability for that alone, and what is stolen is worth nothing."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import update

from identity.capability import issued
from identity.capability.model import Algorithm
from identity.capability.tables import audiences
from identity.errors import BadInput
from identity.model import ScopeKind
from pipeline.states import AttemptState, JobState, StepState
from tests.payments.payments import HUGE, LARGE, OTHER, SMALL, Payments
from tests.tasks.aftermaths import told


def test_below_the_limit_an_invoice_is_paid_by_a_capability_for_it_alone(payments: Payments) -> None:
    signed = partial(REGISTRY.get_sample_value, "aswhom_capabilities_issued_total", {"how": "step"})
    before = signed() or 0
    payments.ask()
    (job,) = payments.system.settle()
    assert (job.state, job.pattern) == (JobState.DONE, "capability")
    assert (signed() or 0) - before == 2
    read, pay = payments.capabilities()
    assert (read.action, read.limit_amount) == ("invoices.GetInvoice", None)
    assert (pay.action, pay.resource, pay.limit_amount) == ("invoices.PayInvoice", f"invoices/{SMALL}", "480.00")
    assert (pay.principal_id, pay.agent_id, pay.outcome) == ("acme.ada", "accounts-payable", "effect")
    (movement,) = payments.movements()
    assert (movement["invoice"], movement["amount"], movement["tenant"]) == (SMALL, "480.00", "acme")
    assert [(attempt.account_id, attempt.generation) for attempt in payments.system.attempts()] == [("", 0)] * 2
    log = [entry for entry in payments.sandbox.read("invoices", "log") if entry["effect"]]
    assert (log[-1]["token_kind"], log[-1]["actor"]) == ("capability", "acme.ada")


def test_beyond_the_policys_limit_nothing_is_issued_and_nothing_is_paid(payments: Payments) -> None:
    payments.ask(HUGE)
    (job,) = payments.system.settle()
    assert job.state == JobState.DEAD
    assert "allowed up to 50000 EUR, and this one is for 980000.00 EUR" in job.reason
    assert [one.action for one in payments.capabilities()] == ["invoices.GetInvoice"]
    assert payments.movements() == []


def test_above_the_threshold_a_second_person_approves_it_and_their_name_is_in_the_token(payments: Payments) -> None:
    payments.ask(LARGE)
    (job,) = payments.system.settle()
    assert (job.state, job.wait) == (JobState.WAITING, "approval")
    assert [one.action for one in payments.capabilities()] == ["invoices.GetInvoice"], "no token before the yes"
    with pytest.raises(BadInput, match="asked for it, and whoever asks does not approve"):
        payments.answer(by="ada")
    assert payments.answer(by="grace").status_code == 200
    (job,) = payments.system.settle()
    assert job.state == JobState.DONE
    (movement,) = payments.movements()
    assert (movement["invoice"], movement["amount"]) == (LARGE, "12500.00")
    pay = payments.capabilities()[-1]
    assert (pay.principal_id, pay.approved_by, pay.limit_amount) == ("acme.ada", ["acme.grace"], "12500.00")
    assert payments.replay(payments.stolen()).json() == {"error": "invalid_token", "reason": "closed"}
    assert len(payments.movements()) == 1


def test_a_no_pays_nothing(payments: Payments) -> None:
    payments.ask(LARGE)
    payments.system.settle()
    assert payments.answer(by="grace", yes=False).status_code == 200
    (job,) = payments.system.settle()
    assert job.state == JobState.DEAD
    assert payments.movements() == []


def test_who_is_nobody_here_pays_nothing(payments: Payments) -> None:
    payments.ask(by="mallory")
    (job,) = payments.system.settle()
    assert job.state == JobState.DEAD
    assert payments.capabilities() == []


def test_two_requests_for_one_invoice_pay_it_once(payments: Payments) -> None:
    payments.ask()
    payments.ask(by="grace")
    assert {job.state for job in payments.system.settle()} == {JobState.DONE}
    assert len(payments.movements()) == 1


def test_fifty_requests_for_one_invoice_at_once_pay_it_once(payments: Payments) -> None:
    for number in range(50):
        payments.ask(by="grace" if number % 2 else "ada")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda job: payments.system.runtime.worker.handle(job.id), payments.system.jobs()))
    ended = [job.state for job in payments.system.settle()]
    assert ended == [JobState.DONE] * 50
    assert len(payments.movements()) == 1
    assert payments.spends() == 1


def test_a_stolen_token_is_worth_nothing_anywhere(payments: Payments) -> None:
    payments.ask()
    payments.system.settle()
    heard = payments.stolen()
    assert payments.replay(heard).json() == {"error": "invalid_token", "reason": "closed"}
    elsewhere = heard["target"].replace(SMALL, OTHER)
    assert payments.replay(heard, target=elsewhere).json()["reason"] == "request"
    assert payments.replay(heard, body='{"amount": "481.00", "currency": "EUR"}').json()["reason"] == "request"
    assert payments.replay(heard, target=f"/v1/invoices/{SMALL}", method="GET").json()["reason"] == "request"
    token = heard["authorization"].removeprefix("Bearer ")
    head, payload, signature = token.split(".")
    assert payments.replay(heard, authorization=f"Bearer {head}.{payload}x.{signature}").status_code == 401
    assert len(payments.movements()) == 1


def test_what_is_no_capability_for_these_invoices_moves_nothing(payments: Payments) -> None:
    """Nothing, what other services take, a plain JWT of ours, and a capability for somebody else."""
    payments.ask()
    payments.system.settle()
    heard = payments.stolen()
    head, payload, signature = heard["authorization"].removeprefix("Bearer ").split(".")
    header = json.loads(urlsafe_b64decode(head + "=="))
    plain = urlsafe_b64encode(json.dumps({**header, "typ": "JWT"}).encode()).decode().rstrip("=")
    pay = payments.capabilities()[-1]
    record = payments.system.runtime.database.read(lambda c: issued.find(c, pay.jti))
    assert record is not None
    elsewhere = replace(record.capability, audience="https://elsewhere.example")
    signed = payments.system.runtime.issuer.sign(elsewhere, Algorithm.ED25519).reveal()
    for presented, reason in (
        ("", "none"),
        ("Basic aW52b2ljZXM6c2VjcmV0", "none"),
        ("Bearer an-accounts-token", "malformed"),
        (f"Bearer {plain}.{payload}.{signature}", "type"),
        (f"Bearer {signed}", "audience"),
    ):
        refused = payments.replay(heard, authorization=presented, idempotency_key=f"its-own-{reason}")
        assert (refused.status_code, refused.json()) == (401, {"error": "invalid_token", "reason": reason})
    assert len(payments.movements()) == 1


def test_whoever_holds_a_token_can_but_repeat_its_request_and_only_until_its_step_has_ended(payments: Payments) -> None:
    """Another agent, say: it is a bearer token, and no service can tell who sends it."""
    payments.order(endpoint="pay_invoice", mode="drop_response", times=1)
    payments.ask()
    payments.system.work_once()
    heard = payments.stolen()
    elsewhere = heard["target"].replace(SMALL, OTHER)
    assert payments.replay(heard, target=elsewhere).json() == {"error": "invalid_token", "reason": "request"}
    repeated = payments.replay(heard, idempotency_key="its-own")
    assert (repeated.status_code, repeated.headers["Idempotent-Replayed"]) == (200, "true")
    payments.system.settle()
    assert payments.replay(heard).json() == {"error": "invalid_token", "reason": "closed"}
    assert [one["invoice"] for one in payments.movements()] == [SMALL]


def test_a_token_that_is_used_fifty_times_at_once_moves_money_once(payments: Payments) -> None:
    """The agent's own request was lost: one of the fifty spends it and pays, and all are told of that."""
    payments.order(endpoint="pay_invoice", mode="drop_request", times=1)
    payments.ask()
    payments.system.work_once()
    heard = payments.stolen()
    assert (payments.movements(), payments.spends()) == ([], 0)
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda number: payments.replay(heard, idempotency_key=f"key-{number}"), range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert [answer.headers.get("Idempotent-Replayed") for answer in answers].count(None) == 1
    assert len(payments.movements()) == 1
    assert payments.spends() == 1


def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_token(payments: Payments) -> None:
    payments.order(endpoint="pay_invoice", mode="drop_response", times=1)
    payments.ask()
    (job,) = payments.system.settle()
    assert job.state == JobState.DONE
    assert len(payments.to_pay()) == 1
    pays = [attempt.state for attempt in payments.system.attempts()[1:]]
    assert pays == [AttemptState.ADOPTED, AttemptState.EFFECT]
    assert len(payments.movements()) == 1


def test_a_call_that_comes_again_with_a_new_token_moves_money_once(payments: Payments) -> None:
    """Its first token expired before the lost answer was asked for again, and no idempotency key tells of it."""
    payments.order(endpoint="pay_invoice", mode="drop_response", times=1)
    payments.ask()
    payments.system.work_once()
    payments.expire()
    payments.order(endpoint="pay_invoice", mode="drop_request", times=1)
    payments.system.settle(until=lambda: len(payments.to_pay()) == 2)
    repeated = payments.replay(payments.stolen(), idempotency_key="its-own")
    assert (repeated.status_code, repeated.headers["Idempotent-Replayed"]) == (200, "true")
    assert payments.spends() == 2, "each token has a first spend"
    first, second = payments.to_pay()
    assert first.jti != second.jti
    assert (first.tenant_id, first.step_id, first.request_sha256) == (
        second.tenant_id,
        second.step_id,
        second.request_sha256,
    )
    (job,) = payments.system.settle()
    assert job.state == JobState.DONE
    assert [one["invoice"] for one in payments.movements()] == [SMALL]


def test_a_key_that_is_rotated_while_a_payment_is_under_way_pays_it_once_and_signs_the_next(payments: Payments) -> None:
    """The service has run since before, and finds the new key among those that are published."""
    payments.order(endpoint="pay_invoice", mode="drop_response", times=1)
    payments.ask()
    payments.system.work_once()
    old = payments.signed_by()
    new = payments.rotate()
    under_way = payments.replay(payments.stolen())
    assert (under_way.status_code, under_way.headers["Idempotent-Replayed"]) == (200, "true")
    payments.system.settle()
    payments.ask(OTHER)
    assert {job.state for job in payments.system.settle()} == {JobState.DONE}
    assert (payments.signed_by(), old != new) == (new, True)
    assert [one["invoice"] for one in payments.movements()] == [SMALL, OTHER]


def test_without_effect_the_next_attempt_has_another_token_and_the_first_is_void(payments: Payments) -> None:
    payments.order(endpoint="pay_invoice", mode="status", status=503, times=1)
    payments.ask()
    (job,) = payments.system.settle()
    assert job.state == JobState.DONE
    first, second = payments.to_pay()
    assert (first.outcome, second.outcome) == ("no_effect", "effect")
    assert len(payments.movements()) == 1


def test_a_revocation_stops_a_token_that_is_on_its_way(payments: Payments) -> None:
    payments.system.when("before_call", 2, lambda: payments.system.revoke(ScopeKind.USER, "acme.ada", "acme"))
    payments.ask()
    (job,) = payments.system.settle()
    assert job.state == JobState.CANCELLED
    assert payments.movements() == []
    assert payments.replay(payments.stolen()).json() == {"error": "invalid_token", "reason": "revoked"}


def test_what_follows_a_revocation_goes_by_a_capability_as_the_service_which_has_no_account_there(
    payments: Payments,
) -> None:
    deployed = payments.deploy("tests.payments.undone_read")
    payments.ask(LARGE)
    deployed.system.settle()
    made = deployed.system.revoke(ScopeKind.USER, "acme.ada", "acme")
    assert told(deployed.system, made) == ("pending", None)
    stopped, follows = deployed.system.settle()
    assert (stopped.state, follows.state, follows.workflow) == (
        JobState.CANCELLED,
        JobState.DONE,
        "pay_invoice.compensation",
    )
    assert [(one.principal_id, one.agent_id) for one in payments.capabilities()] == [
        ("acme.ada", "accounts-payable"),
        ("acme.service", "aswhom"),
    ]
    assert told(deployed.system, made) == ("done", None)
    deployed.system.close()


@pytest.mark.parametrize(
    ("kind", "key", "why"),
    [
        (ScopeKind.TENANT, "acme", "tenant:acme was revoked"),
        (ScopeKind.CONNECTION, "invoices", "connection:invoices was revoked"),
    ],
)
def test_nothing_follows_by_a_capability_what_took_the_service_as_well(
    payments: Payments, kind: ScopeKind, key: str, why: str
) -> None:
    deployed = payments.deploy("tests.payments.undone_read")
    payments.ask(LARGE)
    deployed.system.settle()
    outcome, reason = told(deployed.system, deployed.system.revoke(kind, key, "acme"))
    assert outcome == "not compensated"
    assert reason is not None
    assert reason.startswith(why)
    (stopped,) = deployed.system.settle()
    assert stopped.state == JobState.CANCELLED
    deployed.system.close()


def test_what_would_follow_where_no_capability_is_taken_is_not_begun(payments: Payments) -> None:
    deployed = payments.deploy("tests.payments.undone_read")
    payments.ask(LARGE)
    deployed.system.settle()
    made = deployed.system.revoke(ScopeKind.USER, "acme.ada", "acme")
    database = deployed.system.runtime.database
    database.write(lambda c: c.execute(update(audiences).values(connection_id=None)))
    outcome, reason = told(deployed.system, made)
    assert (outcome, "invoices is not known to take any" in str(reason)) == ("not compensated", True)
    deployed.system.close()


def test_a_worker_killed_between_the_call_and_its_commit_pays_once(payments: Payments) -> None:
    payments.system.when("after_call", 2, payments.system.kill)
    payments.ask()
    (job,) = payments.system.settle()
    assert job.state == JobState.DONE
    assert len(payments.movements()) == 1
    assert [step.state for step in payments.system.steps()] == [StepState.DONE, StepState.DONE]


def test_another_tenants_books_are_never_reached(payments: Payments) -> None:
    payments.ask(tenant="globex", by="linus")
    payments.system.settle()
    assert [(one["tenant"], one["invoice"]) for one in payments.movements()] == [("globex", SMALL)]


def test_a_parameter_that_does_not_fit_the_schema_never_becomes_a_job(payments: Payments) -> None:
    for invoice in (f"{SMALL}/../{OTHER}", "every invoice", "inv_1;drop"):
        with pytest.raises(BadInput):
            payments.ask(invoice)
    assert payments.system.jobs() == []


def test_an_invoice_there_is_not_is_not_paid(payments: Payments) -> None:
    payments.ask("inv_9999")
    (job,) = payments.system.settle()
    assert job.state == JobState.DEAD
    assert payments.movements() == []
