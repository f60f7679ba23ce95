"""Tools as an API key sees them: which ones it covers, and executing one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from identity.agents.api_keys import Caller
from identity.errors import Unavailable
from pipeline.action import Action
from pipeline.agents_api.callers import Keyed, Requests
from pipeline.agents_api.requests import Made
from pipeline.authoring import tools
from pipeline.authoring.registry import Registry
from pipeline.ledger.paging import Record
from webhooks import problems
from webhooks.api.access import makes, request_id
from webhooks.api.jobs import found_job, there
from webhooks.bells import Bells
from webhooks.problems import Problem
from webhooks.validation_errors import left_out, misfits

log = logging.getLogger(__name__)


class NoSuchTool(Problem):
    """The key covers no tool of that name."""


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """One call, as it was sent."""

    tool: str  # its plain name, or the name that models use
    identifier: str
    parameters: dict[str, Any]
    idempotency_key: str | None

    @property
    def keyed(self) -> Keyed:
        """The request that its idempotency key identifies; the same for API and MCP."""
        wanted = {
            "tool": tools.plain_name(self.tool),
            "identifier": self.identifier,
            "parameters": self.parameters,
        }
        return Keyed(key=self.idempotency_key, document=wanted)


class ToolCalls:
    """Executes tools for authorized callers."""

    def __init__(self, requests: Requests, workflows: Registry, bells: Bells, *, clock: Callable[[], datetime]) -> None:
        self._requests = requests
        self._workflows = workflows
        self._bells = bells
        self._clock = clock

    def offered(
        self, who: Caller, *, identifier: str | None = None, provider: str | None = None
    ) -> list[type[Action[Any]]]:
        """Return the tools that the key covers, optionally of one provider, and only those usable as *identifier*.

        Raises UnknownIdentifier, BadInput or PolicyDenied.
        """
        covered = [
            action
            for name, action in self._workflows.tools.items()
            if who.may_execute(name) and provider in (None, action.facts.provider)
        ]
        return covered if identifier is None else self._requests.usable(who, covered, identifier=identifier)

    def tool(self, who: Caller, name: str) -> type[Action[Any]]:
        """Return the tool of that name if the key covers it. Raises Problem."""
        action = tools.named(self._workflows, name)
        if action is None or not who.may_execute(action.action_name()):
            raise NoSuchTool.not_there(f"tool {name}", listed="tools")
        return action

    def carry_out(self, who: Caller, call: ToolCall, *, wait: timedelta) -> Record:
        """Execute the call, and return its job once it has ended or after *wait*.

        Raises Problem, BadInput, Misconfigured, PolicyDenied, NotLetIn, KeyReused or Unavailable.
        """
        made = self._accept(who, call)
        makes(made.id)
        if made.bells:
            # Ring before the wait, not after the response: otherwise the wait would be for a job that no worker knows
            # of.
            self._bells.ring_now(bells=made.bells)
        return self._after_a_wait(who, made, within=wait)

    def _accept(self, who: Caller, call: ToolCall) -> Made:
        now = self._clock()
        try:
            action = _filled(self.tool(who, call.tool), call.parameters)
        except Problem:
            # An earlier acceptance under the same key is returned even if the tool has since changed or gone.
            may = who.may_execute(tools.plain_name(call.tool))
            before = self._requests.job_before(who, call.keyed, now=now) if may else None
            if before is None:
                raise
            return before
        return self._requests.execute(
            who, action, call.keyed, identifier=call.identifier, request=request_id(), now=now
        )

    def _after_a_wait(self, who: Caller, made: Made, *, within: timedelta) -> Record:
        """Return the job after the wait; if the ledger does not answer, as it was accepted. Raises Problem.

        The job is in the ledger: a caller told to send it again would have it done twice.
        """
        try:
            self._requests.wait(who, made.id, within=within)
            return found_job(self._requests, who, made.id)
        except Unavailable as error:
            log.warning("a job is not waited for: %s", error, extra={"action": "api.not_waited", "job": made.id})
            return there(made.row)


def _filled(tool: type[Action[Any]], parameters: dict[str, Any]) -> Action[Any]:
    """Return the tool with these parameters; null for one that has a default omits it. Raises Problem."""
    try:
        return tool.model_validate(parameters)
    except ValidationError as error:
        if nulls := left_out(error, tool, parameters):
            return _filled(tool, {name: value for name, value in parameters.items() if name not in nulls})
        detail = f"The parameters do not fit {tool.action_name()}: see errors, and its schema."
        raise Problem(problems.PARAMETERS, detail, errors=misfits(error, "parameters", model=tool)) from None
