"""The workflow API's declarations: `@workflow`, and the registry that a delivery is matched against."""

from __future__ import annotations

import importlib
import logging
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from identity.errors import BadInput, Misconfigured
from identity.model import AccessPattern, Effect
from pipeline.action import Action, is_action
from pipeline.declarations import (
    check_config,
    check_function,
    check_start,
    checked_event,
    checked_name,
    checked_triggers,
    checked_uses,
)
from pipeline.events import Event, ExternalUser, Tick, Trigger
from pipeline.matching import Considered, Match, consider
from pipeline.schedules.timetable import Daily
from pipeline.uses import SERVICE, SKIP, STOP, USER, Compensation, OnRevoke, Use, Who, compensate

if TYPE_CHECKING:
    from pipeline.run import Run


__all__ = [
    "PLATFORM_AGENT",
    "SERVICE",
    "SKIP",
    "STOP",
    "USER",
    "Compensation",
    "Considered",
    "Daily",
    "Event",
    "ExternalUser",
    "Match",
    "NoConfig",
    "OnRevoke",
    "Registry",
    "Tick",
    "Trigger",
    "Undone",
    "Use",
    "Who",
    "Workflow",
    "compensate",
    "workflow",
]


class NoConfig(BaseModel):
    """The configuration of a workflow that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Undone(Event):
    """The event of a compensation's job: the step to compensate, as the ledger has it."""

    revocation: str
    job: str
    step: str
    action: str
    parameters: dict[str, Any]
    result: dict[str, Any]


log = logging.getLogger(__name__)

PLATFORM_AGENT = "aswhom"  # the agent of every compensation
TOOL = "tool:"  # how the workflows of tools are named; no function has such a name
_COMPENSATION = ".compensation"


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """A declared workflow: a plain function and what is known about it before it runs."""

    name: str
    agent: str
    function: Callable[[Run[Any], Any], None]
    on: tuple[Trigger[Any], ...]
    schedule: Daily | None
    user: Callable[[Any], ExternalUser | None] | None
    triggered_by: Callable[[Any], ExternalUser | str | None] | None
    uses: Mapping[type[Action[Any]], Who]
    config: type[BaseModel]
    event: type[Event]
    on_revoke: Mapping[type[Action[Any]], OnRevoke] = field(default_factory=dict)  # an action that is not in it: STOP
    compensations: Mapping[type[Action[Any]], Compensation] = field(default_factory=dict)

    @property
    def pattern(self) -> AccessPattern:
        """The tag of its jobs, by the actions it declares and whom they run as."""
        if any(action.facts.capability or action.facts.effect is Effect.HIGH_RISK for action in self.uses):
            return AccessPattern.CAPABILITY
        whole = Who(0)
        for who in self.uses.values():
            whole |= who
        if whole == USER | SERVICE:
            return AccessPattern.HYBRID
        return AccessPattern.DELEGATED if whole == USER else AccessPattern.SERVICE

    @property
    def compensating(self) -> Workflow:
        """The workflow of its compensations: as the service alone, by the platform's own agent."""
        return Workflow(
            name=f"{self.name}{_COMPENSATION}",
            agent=PLATFORM_AGENT,
            function=self._compensate,
            on=(),
            schedule=None,
            user=None,
            triggered_by=None,
            uses={how.by: SERVICE for how in self.compensations.values()},
            config=NoConfig,
            event=Undone,
        )

    def _compensate(self, run: Run[Any], event: Undone) -> None:
        for action, how in self.compensations.items():
            if action.action_name() == event.action:
                run.do(how.of(action, event.parameters, event.result), as_=SERVICE)
                return
        raise BadInput(
            f"{self.name} no longer says what follows {event.action}: "
            f"bring that code back, then `aswhom jobs replay {run.job}`"
        )

    @property
    def providers(self) -> Mapping[str, Who]:
        """The providers it calls, and as whom."""
        found: dict[str, Who] = {}
        for action, who in self.uses.items():
            found[action.facts.provider] = found.get(action.facts.provider, Who(0)) | who
        return found


def workflow(
    *,
    agent: str,
    uses: Mapping[type[Action[Any]], Who | Use],
    event: type[Event] | None = None,
    on: Trigger[Any] | tuple[Trigger[Any], ...] = (),
    schedule: Daily | None = None,
    user: Callable[[Any], ExternalUser | None] | None = None,
    triggered_by: Callable[[Any], ExternalUser | str | None] | None = None,
    config: type[BaseModel] = NoConfig,
    name: str | None = None,
) -> Callable[[Callable[[Run[Any], Any], None]], Workflow]:
    """Declare a workflow. Raises TypeError for a declaration that could not be carried out.

    *agent* names the software that acts (in every audit row). *uses* says as whom each action runs, and what a
    revocation does to it (`USER.on_revoke(SKIP)`). *event* is the type its triggers read; without triggers, a Tick.
    *user* reads from the event whom USER means. *triggered_by* reads who sent the event: that person may never approve
    the job's steps. Return the person where the sender knows one, not a login, which may be somebody else's tomorrow.
    """

    def declare(function: Callable[[Run[Any], Any], None]) -> Workflow:
        called = checked_name("a workflow", name or getattr(function, "__name__", ""))
        try:
            check_function("its function", function, "run", "event")
            for reader, reads in (("user=", user), ("triggered_by=", triggered_by)):
                if reads is not None:
                    check_function(reader, reads, "event")
            declared = checked_uses(uses, user)
            triggers = checked_triggers(on)
            told = checked_event(event, triggers)
            check_start(told, triggers, schedule)
            check_config(config)
            return Workflow(
                name=called,
                agent=checked_name("an agent", agent),
                function=function,
                on=triggers,
                schedule=schedule,
                user=user,
                triggered_by=triggered_by,
                uses={action: use.who for action, use in declared.items()},
                config=config,
                event=told,
                on_revoke={action: use.on_revoke for action, use in declared.items()},
                compensations={action: use.compensation for action, use in declared.items() if use.compensation},
            )
        except TypeError as fault:
            raise TypeError(f"workflow {called}: {fault}") from fault

    return declare


class Registry:
    """All workflows of an installation, by name, its actions, and its tools: the actions that agents may ask for."""

    def __init__(self, workflows: Iterable[Workflow], actions: Iterable[type[Action[Any]]] = ()) -> None:
        """Its actions are those that its workflows use, and *actions*. Raises TypeError if one cannot be used."""
        self._by_name: dict[str, Workflow] = {}
        for declared in workflows:
            other = self._by_name.setdefault(declared.name, declared)
            if other is not declared:  # the same object, imported by two modules, is no conflict
                where = f"in {other.function.__module__} and in {declared.function.__module__}"
                raise TypeError(f"two workflows are named {declared.name}, {where}")
        from pipeline.tool_workflows import by_name, derived  # they are workflows themselves

        used = [action for declared in self._by_name.values() for action in declared.uses]
        self.actions: Mapping[str, type[Action[Any]]] = by_name([*used, *actions])
        self.tools = {name: action for name, action in self.actions.items() if action.facts.tool}
        self._of_tools = derived(self.tools.values())

    @classmethod
    def load(cls, modules: Iterable[str]) -> Registry:
        """The workflows and actions that the named modules declare at their top level. Raises Misconfigured."""
        workflows: list[Workflow] = []
        actions: list[type[Action[Any]]] = []
        for name in modules:
            members = list(vars(_imported(name)).values())
            of_it = [one for one in members if isinstance(one, Workflow)]
            tools = [one for one in members if is_action(one) and one.__module__ == name]
            if not of_it and not tools:
                told = {"action": "workflows.nothing_declared", "of": name}
                log.warning("%s declares no workflow and no action at its top level", name, extra=told)
            workflows += of_it
            actions += tools
        try:
            return cls(workflows, actions)
        except TypeError as fault:
            raise Misconfigured(f"a workflow cannot be used: {fault}") from fault

    def __iter__(self) -> Iterator[Workflow]:
        return iter(self._by_name.values())

    def get(self, name: str) -> Workflow:
        """The workflow of that name; also that of a compensation or of a single tool. Raises BadInput."""
        found = self.find(name)
        if found is None:
            known = ", ".join(sorted(self._by_name)) or "none"
            raise BadInput(f"no workflow is named {name!r}: known are {known}. Is its module in ASWHOM_WORKFLOWS?")
        return found

    def declared(self, name: str) -> Workflow:
        """The workflow of that name, but none of a tool and none that undoes another's work. Raises BadInput."""
        if name not in self._by_name and name.startswith(TOOL):
            raise BadInput(f"{name} is a tool's: the agents' API carries it out, for the key that asks for it")
        if name not in self._by_name and (undone := self.find(name)) is not None:
            raise BadInput(f"{name} undoes what {undone.name.removesuffix(_COMPENSATION)} did: a revocation starts it")
        return self.get(name)

    def find(self, name: str) -> Workflow | None:
        """The workflow of that name, or None where `get` raises."""
        of = self._by_name.get(name.removesuffix(_COMPENSATION))
        if of is not None and name != of.name:
            return of.compensating
        return of or next((one for one in self._of_tools.values() if one.name == name), None)

    def for_tool(self, action: type[Action[Any]], who: Who) -> Workflow:
        """The one-step workflow that carries out a tool as *who*."""
        return self._of_tools[action, who]

    def knows(self, source: str, event: str) -> bool:
        """Whether any workflow listens to this kind of event at all."""
        return any(t.source == source and t.event == event for w in self._by_name.values() for t in w.on)

    def usages(self, source: str, event: str) -> dict[str, tuple[str, ...]]:
        """What a person could have typed, by the workflow that would have wanted it."""
        listened = ((w.name, t) for w in self for t in w.on if (t.source, t.event) == (source, event) and t.usage)
        found: dict[str, tuple[str, ...]] = {}
        for name, trigger in listened:
            found[name] = (*found.get(name, ()), trigger.usage)
        return found

    def match(self, source: str, event: str, body: Mapping[str, Any]) -> list[Match]:
        """Every workflow this delivery starts, with its typed event.

        Raises BadInput if some workflow could not read the body and none starts.
        """
        considered = self.consider(source, event, body)
        matches = [one.match for one in considered if one.match is not None]
        misfits = [one.refusal for one in considered if one.misfit]
        if misfits and not matches:
            raise BadInput(misfits[-1])
        return matches

    def consider(self, source: str, event: str, body: Mapping[str, Any]) -> list[Considered]:
        """For each workflow that listens to this kind of event: whether this one starts it, and why not."""
        found = []
        for declared in self._by_name.values():
            triggers = [one for one in declared.on if (one.source, one.event) == (source, event)]
            if triggers:
                found.append(consider(declared, triggers, body))
        return found


def _imported(module: str) -> ModuleType:
    """Import a module of workflows. Raises Misconfigured for any error: the module is the operator's own code."""
    try:
        return importlib.import_module(module)
    except Exception as fault:
        lines = [
            line for frame, line in traceback.walk_tb(fault.__traceback__) if frame.f_globals.get("__name__") == module
        ]
        where = f"{module}, line {lines[-1]}" if lines else module
        raise Misconfigured(
            f"workflows cannot be loaded from {where} ({type(fault).__name__}: {fault}): "
            "see ASWHOM_WORKFLOWS, and ASWHOM_WORKFLOWS_DIR"
        ) from fault
