"""A declared workflow: what `@workflow` makes of a function, with what is known about it before it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from identity.errors import BadInput
from identity.model import AccessPattern, Effect
from pipeline.action import Action
from pipeline.authoring.uses import SERVICE, USER, Compensation, OnRevoke, Who
from pipeline.events import Event, ExternalUser, Trigger
from pipeline.schedules.timetable import Daily

if TYPE_CHECKING:
    from pipeline.run import Run

PLATFORM_AGENT = "aswhom"  # the agent of every compensation
TOOL = "tool:"  # how the workflows of tools are named; no function has such a name
COMPENSATION = ".compensation"  # how the workflow of its compensations is named, after its own name


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
    def providers(self) -> Mapping[str, Who]:
        """The providers it calls, and as whom."""
        found: dict[str, Who] = {}
        for action, who in self.uses.items():
            found[action.facts.provider] = found.get(action.facts.provider, Who(0)) | who
        return found
