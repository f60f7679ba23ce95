"""What `make` of `compensate` returns is held against what is declared, where it is made, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import pytest

from identity.errors import BadInput
from pipeline.authoring.declared_workflow import Undone, Workflow
from pipeline.run import Run, StepSpec
from pipeline.workflow import SERVICE, compensate
from tests.ledger.house import Say
from tests.ledger.undoing import say_and_undo


class Shout(Say):
    pass


class Steps:
    """Takes what a compensation asks for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, Any]] = []

    def perform(self, spec: StepSpec[Any]) -> None:
        self.asked.append((spec.action, spec.named))


def follow(making: Any, *, parameters: Mapping[str, Any], result: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """What follows a step of *parameters* and *result*."""
    declared: Workflow = replace(say_and_undo, compensations={Say: compensate(Say, making)}).compensating
    steps = Steps()
    run = Run(cast("Any", steps), job="j", tenant="acme", config=cast("Any", None), has_user=False)
    of = {"revocation": "r", "job": "j", "step": "step-1", "action": "github.Say"}
    declared.function(run, Undone(**of, parameters=dict(parameters), result=dict(result)))
    return steps.asked


def undo(say: Say, said: Any) -> Say:
    return Say(text=f"{say.text} was undone")


def test_what_follows_is_done_as_the_service() -> None:
    asked = follow(undo, parameters={"text": "hello"}, result={"id": "7"})
    assert asked == [(Say(text="hello was undone"), SERVICE)]


@pytest.mark.parametrize(
    ("making", "made"),
    [
        (lambda say, said: None, "NoneType"),
        (lambda say, said: Shout(text="no"), "Shout"),
        (lambda say, said: Say, "ModelMetaclass"),
    ],
)
def test_what_is_not_declared_to_follow_is_refused_in_a_sentence(making: Any, made: str) -> None:
    with pytest.raises(BadInput, match=rf"is followed by a github\.Say, and its `make` returned {made}"):
        follow(making, parameters={"text": "hello"}, result={"id": "7"})


@pytest.mark.parametrize(
    ("parameters", "result"), [({"words": "hello"}, {"id": "7"}), ({"text": "hello"}, {"number": 7})]
)
def test_what_is_stored_of_an_older_action_is_refused_in_a_sentence(
    parameters: Mapping[str, Any], result: Mapping[str, Any]
) -> None:
    with pytest.raises(BadInput, match=r"what is stored of a github\.Say no longer fits it"):
        follow(undo, parameters=parameters, result=result)


def test_a_compensation_that_the_code_no_longer_declares_asks_for_that_code() -> None:
    declared: Workflow = replace(say_and_undo, compensations={}).compensating
    of = {"revocation": "r", "job": "j", "step": "step-1", "action": "github.Say"}
    run = Run(cast("Any", Steps()), job="j", tenant="acme", config=cast("Any", None), has_user=False)
    says = r"say_it no longer says what follows github\.Say: bring that code back, then `aswhom jobs replay j`"
    with pytest.raises(BadInput, match=says):
        declared.function(run, Undone(**of, parameters={"text": "hello"}, result={"id": "7"}))
