"""Policy as a table: three questions in order, and no silent exchange of principals."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from identity.model import AccessPattern, Effect, PrincipalKind
from identity.policy.decision import Decision, Denied, decide
from identity.policy.rules import FACTS_ALONE, Question, TriggerKind

USER, SERVICE = PrincipalKind.USER, PrincipalKind.SERVICE
BOTH = frozenset({USER, SERVICE})


def ask(**changes: Any) -> Decision | Denied:
    question: dict[str, Any] = {
        "action": "github.Comment",
        "provider": "github",
        "workflow": "link_pull_request",
        "agent": "assistant",
        "effect": Effect.WRITE,
        "attribution": False,
        "declared": BOTH,
        "named": None,
        "trigger": TriggerKind.PERSON,
        "has_user": True,
    }
    return decide(Question(**question | changes), FACTS_ALONE)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, USER),
        ({"attribution": True, "effect": Effect.READ, "trigger": TriggerKind.BACKGROUND}, USER),
        ({"trigger": TriggerKind.BACKGROUND}, SERVICE),
        ({"effect": Effect.READ}, SERVICE),
        ({"has_user": False}, SERVICE),
        ({"declared": frozenset({USER}), "trigger": TriggerKind.BACKGROUND}, USER),
        ({"declared": frozenset({SERVICE})}, SERVICE),
        ({"named": USER, "trigger": TriggerKind.BACKGROUND}, USER),
        ({"named": SERVICE}, SERVICE),
    ],
    ids=str,
)
def test_the_rules_pick_the_user_or_the_service_principal(changes: dict[str, Any], kind: PrincipalKind) -> None:
    decision = ask(**changes)
    assert isinstance(decision, Decision)
    assert decision.kind is kind
    assert decision.pattern is (AccessPattern.DELEGATED if kind is USER else AccessPattern.SERVICE)
    assert decision.reason


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"named": USER, "declared": frozenset({SERVICE})}, "was not declared"),
        ({"named": SERVICE, "attribution": True}, "attributable"),
        ({"named": USER, "has_user": False}, "no principal is linked"),
        ({"attribution": True, "has_user": False}, "no principal is linked"),
        ({"attribution": True, "declared": frozenset({SERVICE})}, "was not declared"),
        ({"declared": frozenset()}, "nobody"),
        ({"effect": Effect.HIGH_RISK}, "no [[allow]] of the tenant's policy"),
        ({"effect": Effect.HIGH_RISK, "named": SERVICE}, "high-risk"),
    ],
    ids=str,
)
def test_a_step_that_no_principal_may_take_is_refused_and_says_why(changes: dict[str, Any], why: str) -> None:
    denied = ask(**changes)
    assert isinstance(denied, Denied)
    assert why in denied.reason


def test_a_named_principal_is_never_exchanged_and_an_undeclared_one_never_used() -> None:
    every = itertools.product(
        Effect,
        (True, False),
        (frozenset(), frozenset({USER}), frozenset({SERVICE}), BOTH),
        (None, USER, SERVICE),
        TriggerKind,
        (True, False),
    )
    for effect, attribution, declared, named, trigger, has_user in every:
        decision = ask(
            effect=effect,
            attribution=attribution,
            declared=declared,
            named=named,
            trigger=trigger,
            has_user=has_user,
        )
        if isinstance(decision, Decision):
            assert named in (None, decision.kind)
            assert decision.kind in declared
            assert decision.kind is USER or not attribution
            assert decision.kind is SERVICE or has_user
            assert effect is not Effect.HIGH_RISK


def test_the_reason_says_who_named_the_principal_and_what_decided() -> None:
    by_workflow = ask(named=USER, attribution=True)
    by_request = ask(named=USER, trigger=TriggerKind.BACKGROUND, is_requested=True)
    assert isinstance(by_workflow, Decision)
    assert isinstance(by_request, Decision)
    assert by_workflow.reason == "named by the workflow: attribution required, user-triggered, write"
    assert by_request.reason == "named by the request: background, write"
