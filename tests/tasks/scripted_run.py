"""The real Run over steps that answer from a script: who did what is recorded, and no ledger is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import BaseModel

from pipeline.action import Action, Result
from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.uses import Who
from pipeline.run import OnceUsed, Run, StepRefused, StepSpec
from pipeline.workflow import USER, Event

R = TypeVar("R", bound=Result)

Script = Mapping[type[Action[Any]], Callable[[Any], Result]]


@dataclass(frozen=True)
class Step:
    """One thing that a workflow had done."""

    action: Action[Any]
    as_: Who
    once: str | None
    adopted: bool
    patience: timedelta = timedelta()


@dataclass
class Tenant:
    """What several runs of one tenant share: the once keys, and what really happened upstream."""

    once: dict[tuple[str, str], tuple[str, Result]] = field(default_factory=dict)
    effects: list[Action[Any]] = field(default_factory=list)


class ScriptedSteps:
    """Does as a ledger would: refuses what was not declared, and gives a once key's owner's result to everybody."""

    def __init__(self, declared: Workflow, script: Script, *, has_user: bool, tenant: Tenant) -> None:
        self.done: list[Step] = []
        self._declared = declared
        self._script = script
        self._has_user = has_user
        self._shared = tenant

    def perform(self, spec: StepSpec[R]) -> R:
        action, named, once = spec.action, spec.named, spec.once
        assert named is not None, "the shipped workflows name whom each step acts as"
        assert named & self._declared.uses[type(action)], f"{action.action_name()} is not declared as {named}"
        if named is USER and not self._has_user:
            raise StepRefused("no principal")
        held = self._shared.once.get((action.action_name(), once)) if once else None
        if held is not None and held[0] != action.request_hash():
            raise OnceUsed(f"the once key {once} is held with other parameters")
        result = held[1] if held else self._script[type(action)](action)
        if held is None:
            self._shared.effects.append(action)
            if once:
                self._shared.once[(action.action_name(), once)] = (action.request_hash(), result)
        self.done.append(Step(action, named, once, held is not None, spec.patience))
        assert isinstance(result, action.result)
        return result  # type: ignore[return-value]  # a class variable cannot name the action's own R

    def sleep(self, position: int, occurrence: int, duration: timedelta) -> None:
        raise AssertionError("no shipped workflow sleeps")


def play(
    declared: Workflow,
    event: Event,
    script: Script,
    *,
    config: BaseModel,
    has_user: bool = False,
    tenant: Tenant | None = None,
) -> list[Step]:
    """Run a workflow once and say what it had done."""
    steps = ScriptedSteps(declared, script, has_user=has_user, tenant=tenant or Tenant())
    declared.function(Run(steps, job="job-1", tenant="acme", config=config, has_user=has_user), event)
    return steps.done
