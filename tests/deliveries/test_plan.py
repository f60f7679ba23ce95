"""The plan of a delivery, decided without a ledger."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.matching import Considered, Match
from pipeline.deliveries.plan import Plan, plan
from pipeline.deliveries.tenant import DeliveryTenant
from pipeline.jobs.tenant_setup import TenantSetup
from pipeline.model import DeliveryOutcome, LeftOut, SignedDelivery
from pipeline.signed_answer import SignedAnswer
from tests.ledger.house import Opened, say_it

IDLE = (DeliveryOutcome.UNRECOGNISED, "no workflow wants it")
ACME = DeliveryTenant(tenant="acme")
NOBODY = DeliveryTenant(tenant=None, refusal="no tenant has it")
TRESPASSER = DeliveryTenant(tenant=None, refusal="it is another tenant's", trespassed="acme")
UNLISTED = DeliveryTenant(tenant=None, refusal="it is not listed", shown_to="acme")
OTHER = replace(say_it, name="other")


def here(*enabled: str) -> TenantSetup:
    return TenantSetup(tenant="acme", configs={name: {} for name in enabled}, people={}, services=(), connections={})


def wanted(workflow: Workflow) -> Match:
    return Match(workflow=workflow, event=Opened(), document={}, user=None, triggered_by=None)


def misfit(workflow: Workflow) -> Considered:
    return Considered(workflow=workflow, match=None, refusal=f"{workflow.name} cannot read it", misfit=True)


def planned(
    whose: DeliveryTenant,
    setup: TenantSetup | None,
    *,
    matches: tuple[Workflow, ...] = (),
    misfits: tuple[Workflow, ...] = (),
    answer: SignedAnswer | None = None,
) -> Plan:
    document: dict[str, Any] = {"text": "hello"}
    delivery = SignedDelivery(
        source="github",
        connection="gh",
        delivery_id="one",
        event="pull_request",
        body=json.dumps(document).encode(),
        document=document,
        installation="7",
        dedupe_by_body=True,
        answer=answer,
    )
    jobs = [f"job of {one.name}" for one in matches]
    wants, cannot = [wanted(one) for one in matches], [misfit(one) for one in misfits]
    return plan(delivery, whose, setup, wants, cannot, jobs, idle=IDLE)


OFF = "workflow say_it is not switched on for tenant acme"


@pytest.mark.parametrize(
    ("whose", "enabled", "matches", "misfits", "outcome", "reason"),
    [
        (ACME, None, (), (), *IDLE),
        (ACME, (), (say_it,), (), DeliveryOutcome.IGNORED, OFF),
        (ACME, ("say_it",), (say_it,), (), DeliveryOutcome.ACCEPTED, "1 job(s)"),
        (ACME, ("say_it",), (say_it, OTHER), (), DeliveryOutcome.ACCEPTED, "1 job(s)"),
        (ACME, ("say_it", "other"), (say_it,), (OTHER,), DeliveryOutcome.ACCEPTED, "1 job(s); other cannot read it"),
        (ACME, ("other",), (say_it,), (OTHER,), DeliveryOutcome.UNRECOGNISED, "other cannot read it"),
        (ACME, (), (say_it,), (OTHER,), DeliveryOutcome.IGNORED, OFF),
        (ACME, (), (), (OTHER,), *IDLE),
        (NOBODY, None, (), (), *IDLE),
        (NOBODY, None, (say_it,), (), DeliveryOutcome.IGNORED, NOBODY.refusal),
        (NOBODY, None, (), (OTHER,), IDLE[0], NOBODY.refusal),
        (TRESPASSER, None, (), (), DeliveryOutcome.REFUSED, TRESPASSER.refusal),
        (TRESPASSER, None, (say_it,), (OTHER,), DeliveryOutcome.REFUSED, TRESPASSER.refusal),
        (UNLISTED, None, (say_it,), (), DeliveryOutcome.IGNORED, UNLISTED.refusal),
    ],
)
def test_the_outcome_and_its_reason_follow_from_the_tenant_and_what_it_has_switched_on(
    whose: DeliveryTenant,
    enabled: tuple[str, ...] | None,
    matches: tuple[Workflow, ...],
    misfits: tuple[Workflow, ...],
    outcome: DeliveryOutcome,
    reason: str,
) -> None:
    setup = None if enabled is None else here(*enabled)
    found = planned(whose, setup, matches=matches, misfits=misfits)
    assert (found.outcome, found.reason) == (outcome, reason)
    assert bool(found.starts) is (outcome is DeliveryOutcome.ACCEPTED)


def test_each_job_has_its_own_id_and_the_configuration_of_its_workflow() -> None:
    setup = replace(here("other"), configs={"other": {"limit": 3}})
    (start,) = planned(ACME, setup, matches=(say_it, OTHER)).starts
    assert (start.job, start.match.workflow, start.config) == ("job of other", OTHER, {"limit": 3})


def test_an_answer_of_nobodys_is_refused_even_if_a_workflow_could_not_read_it() -> None:
    answer = SignedAnswer(provider="slack", user="U1", approval="apr", digest="d", yes=True)
    found = planned(NOBODY, None, misfits=(OTHER,), answer=answer)
    assert (found.outcome, found.reason) == (DeliveryOutcome.REFUSED, NOBODY.refusal)


def test_only_enabled_workflows_count_as_misread_and_mark_a_delivery_that_started_others() -> None:
    both = planned(ACME, here("say_it", "other"), matches=(say_it,), misfits=(OTHER,))
    assert (both.misread, both.left_out) == ({"other": "other cannot read it"}, LeftOut.MISREAD)
    alone = planned(ACME, here("other"), misfits=(OTHER,))
    assert (alone.misread, alone.left_out) == ({"other": "other cannot read it"}, None)
    off = planned(ACME, here("say_it"), matches=(say_it,), misfits=(OTHER,))
    assert (off.misread, off.left_out) == ({}, None)


def test_a_place_that_is_not_listed_marks_the_delivery_only_if_a_workflow_wanted_it() -> None:
    assert planned(UNLISTED, None, matches=(say_it,), misfits=(OTHER,)).left_out is LeftOut.UNLISTED
    assert planned(UNLISTED, None, misfits=(OTHER,)).left_out is None
