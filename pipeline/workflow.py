"""The workflow API's declarations: triggers, `@workflow`, and the registry that a delivery is matched against."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from identity.errors import BadInput
from identity.model import AccessPattern, Effect
from identity.principals import checked_id
from pipeline.action import Action, check_action, is_action
from pipeline.matching import Considered, Match, consider
from pipeline.schedules.timetable import Daily
from pipeline.uses import SERVICE, SKIP, STOP, USER, Compensation, OnRevoke, Use, Who, as_use, compensate

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


class Event(BaseModel):
    """What a workflow is told about what happened: frozen, and the same on every run."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ExternalUser(BaseModel):
    """A person as a provider names them; who they are here is only ever an alias's say-so."""

    model_config = ConfigDict(frozen=True)

    provider: str
    id: str
    login: str

    @property
    def name_for_good(self) -> str:
        """`github:1001`: a login can be renamed, and taken by another."""
        return f"{self.provider}:{self.id}"


class NoConfig(BaseModel):
    """The configuration of a workflow that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


E = TypeVar("E", bound=Event)


@dataclass(frozen=True, kw_only=True)
class Trigger(Generic[E]):
    """Which deliveries start a workflow: `read` gives the typed event, or None when it is not meant.

    `read` raises pydantic's ValidationError for a body that is not of the sender's published shape.
    """

    source: str
    event: str
    read: Callable[[Mapping[str, Any]], E | None]


class Tick(Event):
    """The event of a scheduled job."""

    slot: str  # ISO time of the slot
    schedule: str = ""  # its name: a tenant may have several of one workflow


class Undone(Event):
    """The event of a compensation's job: the step it follows, as the ledger has it."""

    revocation: str
    job: str
    step: str
    action: str
    parameters: dict[str, Any]
    result: dict[str, Any]


PLATFORM_AGENT = "aswhom"  # as which compensations are made
_COMPENSATION = ".compensation"
LONGEST_NAME = 64  # characters, of a workflow and of a schedule


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
    on_revoke: Mapping[type[Action[Any]], OnRevoke] = field(default_factory=dict)  # what is not in it stops
    compensations: Mapping[type[Action[Any]], Compensation] = field(default_factory=dict)

    @property
    def pattern(self) -> AccessPattern:
        """The tag of its jobs: that of the declared set."""
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
        ((action, how),) = [item for item in self.compensations.items() if item[0].action_name() == event.action]
        run.do(how.of(action, event.parameters, event.result), as_=SERVICE)

    @property
    def providers(self) -> Mapping[str, Who]:
        """Which providers it reaches, and as whom."""
        found: dict[str, Who] = {}
        for action, who in self.uses.items():
            found[action.facts.provider] = found.get(action.facts.provider, Who(0)) | who
        return found


def workflow(
    *,
    agent: str,
    uses: Mapping[type[Action[Any]], Who | Use],
    event: type[Event] = Tick,
    on: Trigger[Any] | tuple[Trigger[Any], ...] = (),
    schedule: Daily | None = None,
    user: Callable[[Any], ExternalUser | None] | None = None,
    triggered_by: Callable[[Any], ExternalUser | str | None] | None = None,
    config: type[BaseModel] = NoConfig,
    name: str | None = None,
) -> Callable[[Callable[[Run[Any], Any], None]], Workflow]:
    """Declare a workflow. Raises TypeError for a declaration that could not be carried out.

    *agent* names the software that acts (in every audit row); *uses* says which action runs as whom, and what a
    revocation means for it (`USER.on_revoke(SKIP)`); *user* whom USER means; *triggered_by* who sent the event, who
    never approves what comes of it: the person where the sender knows one, since a login may be another's tomorrow.
    """
    declared = {action: as_use(use) for action, use in uses.items()}
    for action, use in declared.items():
        check_action(action)
        if use.who & USER and user is None:
            raise TypeError(
                f"{action.action_name()} may run as USER, but the workflow does not say who that is: user=…"
            )
    if schedule is not None and not issubclass(Tick, event):
        raise TypeError(f"a scheduled workflow is told of a Tick, and this one takes {event.__name__}")

    def declare(function: Callable[[Run[Any], Any], None]) -> Workflow:
        return Workflow(
            name=_checked_name(name or function.__name__),
            agent=agent,
            function=function,
            on=on if isinstance(on, tuple) else (on,),
            schedule=schedule,
            user=user,
            triggered_by=triggered_by,
            uses={action: use.who for action, use in declared.items()},
            config=config,
            event=event,
            on_revoke={action: use.on_revoke for action, use in declared.items()},
            compensations={action: use.compensation for action, use in declared.items() if use.compensation},
        )

    return declare


def _checked_name(name: str) -> str:
    """*name*, or TypeError: its schedule is named so for each tenant, and its row holds no more."""
    try:
        checked_id(name)
    except BadInput as fault:
        raise TypeError(f"a workflow cannot have that name: {fault}") from fault
    if len(name) > LONGEST_NAME:
        raise TypeError(f"a workflow's name has {LONGEST_NAME} characters at most, and {name!r} has {len(name)}")
    return name


class Registry:
    """All workflows of an installation, by name, and its tools: the actions that agents may ask for one by one."""

    def __init__(self, workflows: Iterable[Workflow], actions: Iterable[type[Action[Any]]] = ()) -> None:
        """A tool is every action that a workflow uses, and what else *actions* names. Raises TypeError."""
        self._by_name: dict[str, Workflow] = {}
        for declared in workflows:
            if declared.name in self._by_name:
                raise TypeError(f"two workflows are named {declared.name}")
            self._by_name[declared.name] = declared
        from pipeline.tool_workflows import by_name, derived  # they are workflows themselves

        used = [action for declared in self._by_name.values() for action in declared.uses]
        self.tools: Mapping[str, type[Action[Any]]] = by_name([*used, *actions])
        self._of_tools = derived(self.tools.values())

    @classmethod
    def load(cls, modules: Iterable[str]) -> Registry:
        """The workflows and actions that the named modules declare at their top level. Raises ImportError."""
        members = [(name, member) for name in modules for member in vars(importlib.import_module(name)).values()]
        declared = [member for _, member in members if isinstance(member, Workflow)]
        return cls(declared, [one for name, one in members if is_action(one) and one.__module__ == name])

    def __iter__(self) -> Iterator[Workflow]:
        return iter(self._by_name.values())

    def get(self, name: str) -> Workflow:
        """The workflow of that name, of a job for one tool too. Raises BadInput."""
        found = self.find(name)
        if found is None:
            known = ", ".join(sorted(self._by_name)) or "none"
            raise BadInput(f"no workflow is named {name!r}: known are {known}. Is its module in ASWHOM_WORKFLOWS?")
        return found

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

    def match(self, source: str, event: str, body: Mapping[str, Any]) -> list[Match]:
        """Every workflow this delivery starts, with its typed event.

        Raises BadInput for a body of another shape, unless some workflow could read it.
        """
        considered = self.consider(source, event, body)
        matches = [one.match for one in considered if one.match is not None]
        misfits = [one.refusal for one in considered if one.misfit]
        if misfits and not matches:
            raise BadInput(misfits[-1])
        return matches

    def consider(self, source: str, event: str, body: Mapping[str, Any]) -> list[Considered]:
        """What every workflow that listens to this kind of event makes of this one."""
        found = []
        for declared in self._by_name.values():
            triggers = [one for one in declared.on if (one.source, one.event) == (source, event)]
            if triggers:
                found.append(consider(declared, triggers, body))
        return found
