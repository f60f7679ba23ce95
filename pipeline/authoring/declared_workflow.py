"""A declared workflow: the function under `@workflow` and everything known about it before it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from identity.errors import BadInput
from identity.model import AccessPattern, Effect
from pipeline.action import Action
from pipeline.authoring.timetable import Daily
from pipeline.authoring.uses import SERVICE, USER, Compensation, OnRevoke, Who
from pipeline.events import Event, ExternalUser, Trigger

if TYPE_CHECKING:
    from pipeline.run import Run

PLATFORM_AGENT = "aswhom"  # the agent of every compensation
TOOL = "tool:"  # prefix of the names of tools' workflows; no function can have such a name
COMPENSATION = ".compensation"  # suffix of the name of a workflow's compensations


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


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """A plain function and everything known about it before it runs."""

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
    on_revoke: Mapping[type[Action[Any]], OnRevoke] = field(default_factory=dict)  # STOP for an action not listed
    compensations: Mapping[type[Action[Any]], Compensation] = field(default_factory=dict)

    @property
    def pattern(self) -> AccessPattern:
        """Return the tag of its jobs, derived from the declared actions and their principals."""
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
        """Return the workflow of its compensations: run only as the service, by the platform's own agent."""
        return Workflow(
            name=f"{self.name}{COMPENSATION}",
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
    def reads(self) -> frozenset[str]:
        """Return the names of its actions that only read."""
        return frozenset(action.action_name() for action in self.uses if action.facts.effect is Effect.READ)

    @property
    def providers(self) -> Mapping[str, Who]:
        """Return the providers it calls, with the principals it calls them as."""
        found: dict[str, Who] = {}
        for action, who in self.uses.items():
            found[action.facts.provider] = found.get(action.facts.provider, Who(0)) | who
        return found
