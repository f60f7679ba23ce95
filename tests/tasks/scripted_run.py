"""A Run that answers from a script and records who did what: the interface an author sees, without a ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import BaseModel

from pipeline.action import Action, Result
from pipeline.run import Run, StepRefused
from pipeline.workflow import USER, Who, Workflow

C = TypeVar("C", bound=BaseModel)
R = TypeVar("R", bound=Result)

Script = Mapping[type[Action[Any]], Callable[[Any], Result]]


@dataclass(frozen=True)
class Step:
    """One thing that a workflow had done."""

    action: Action[Any]
    as_: Who
    once: str | None
    adopted: bool


@dataclass
class Tenant:
    """What several runs of one tenant share: the once keys, and what really happened upstream."""

    once: dict[tuple[str, str], tuple[str, Result]] = field(default_factory=dict)
    effects: list[Action[Any]] = field(default_factory=list)


class ScriptedRun(Run[C]):
    """Does as a ledger would: refuses what was not declared, and gives a once key's owner's result to everybody."""

    def __init__(self, declared: Workflow, config: C, script: Script, *, has_user: bool, tenant: Tenant) -> None:
        self.config = config
        self.tenant = "acme"
        self.has_user = has_user
        self.steps: list[Step] = []
        self._declared = declared
        self._script = script
        self._shared = tenant

    def do(self, action: Action[R], *, as_: Who | None = None, once: str | None = None) -> R:
        assert as_ is not None, "the shipped workflows name whom each step acts as"
        assert as_ & self._declared.uses[type(action)], f"{action.action_name()} is not declared as {as_}"
        if as_ is USER and not self.has_user:
            raise StepRefused("no principal")
        key = (action.action_name(), once)
        held = self._shared.once.get((action.action_name(), once)) if once else None
        if held is not None:
            assert held[0] == action.request_hash(), f"the once key {key} is held with other parameters"
        result = held[1] if held else self._script[type(action)](action)
        if once and held is None:
            self._shared.once[(action.action_name(), once)] = (action.request_hash(), result)
        if held is None:
            self._shared.effects.append(action)
        self.steps.append(Step(action, as_, once, held is not None))
        assert isinstance(result, action.result)
        return result  # type: ignore[return-value]  # a class variable cannot name the action's own R

    def sleep(self, duration: timedelta) -> None:
        raise AssertionError("no shipped workflow sleeps")
