"""What the MCP server lists and calls: the tools of the agents' API, and two of its own, in words for models."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from identity.api_keys import Caller
from identity.errors import BadInput, Misconfigured, NotInState, PolicyDenied, Unavailable
from identity.identifiers import UnknownIdentifier
from pipeline import tools
from pipeline.accounts.invitations import Invitations
from pipeline.action import Action
from pipeline.ledger.paging import Record
from pipeline.ledger.requests import KeyReused
from pipeline.requests import Keyed, Requests
from pipeline.workflow import Registry
from webhooks import problems
from webhooks.api import shapes
from webhooks.api.access import ROLES, May
from webhooks.api.job_models import Outcome
from webhooks.api.jobs import found_job
from webhooks.api.models import Id
from webhooks.api.tool_calls import ToolCall, ToolCalls
from webhooks.misfits import misfits
from webhooks.problems import Problem

LOOK = "aswhom__look_at_job"
CONNECT = "aswhom__connect_link"

_LOOK_SAYS = "What became of a job that an earlier call of a tool began."
_CONNECT_SAYS = (
    "Make a link by which the person connects the account that a job waits for. Give it to that person alone: it is "
    "good once, for some minutes. The job goes on by itself afterwards."
)
_NEXT = {
    Outcome.PENDING: f"It goes on by itself. Ask {LOOK} later, and do not call the tool again.",
    Outcome.NEEDS_CONSENT: f"A person has to connect an account first. {CONNECT} makes the link for them.",
    Outcome.WAITING: f"Somebody has to approve it, or an operator to look at it. Ask {LOOK} later.",
    Outcome.UNKNOWN: "It may have been done. Look at the provider before you call the tool again.",
}
_ENDED_BADLY = {Outcome.FAILED, Outcome.REFUSED, Outcome.CANCELLED, Outcome.DEAD, Outcome.UNKNOWN}


class UnknownTool(Exception):
    """The message says which."""


class NamedCall(BaseModel):
    """What `tools/call` takes. An idempotency key comes in `_meta`."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(max_length=200)
    arguments: dict[str, Any] = Field(default_factory=dict)
    meta: dict[str, Any] = Field(default_factory=dict, alias="_meta")

    @property
    def idempotency_key(self) -> str | None:
        """Raises BadInput for one that is none."""
        key = self.meta.get("idempotencyKey")
        if key is not None and not (isinstance(key, str) and 0 < len(key) <= 200 and key.isascii()):
            raise BadInput("idempotencyKey in _meta is a text of 1 to 200 ASCII characters")
        return key


class _OfAJob(BaseModel):
    model_config = ConfigDict(extra="forbid")

    job: Id = Field(description="the `job` of the tool's answer")


@dataclass(frozen=True, kw_only=True)
class McpTools:
    """Lists and calls tools for whoever may."""

    calls: ToolCalls
    requests: Requests
    invitations: Invitations
    workflows: Registry
    clock: Callable[[], datetime]

    def listed(self, who: Caller, identifier: str) -> list[dict[str, Any]]:
        """Those that could be carried out as *identifier*; of somebody new, all that the key covers.

        Raises BadInput or PolicyDenied.
        """
        try:
            offered = self.calls.offered(who, identifier=identifier)
        except UnknownIdentifier:
            offered = self.calls.offered(who)
        listed = [_listed(action) for action in offered if May.EXECUTE in ROLES[who.role]]
        own = [(LOOK, _LOOK_SAYS, True)]
        if May.CONNECT in ROLES[who.role]:
            own.append((CONNECT, _CONNECT_SAYS, False))
        return listed + [_own_tool(name, says, reads=reads) for name, says, reads in own]

    def called(self, who: Caller, identifier: str, call: NamedCall, *, wait: timedelta) -> dict[str, Any]:
        """The result of a call. Raises UnknownTool.

        A fault that a model, or whoever set this up, can do something about is a result: models see no errors.
        """
        try:
            if call.name == LOOK:
                return self._told(found_job(self.requests, who, _job(call)))
            if call.name == CONNECT:
                return self._connect(who, _job(call))
            _allow(who, May.EXECUTE)
            made = ToolCall(
                tool=call.name,
                identifier=identifier,
                parameters=call.arguments,
                idempotency_key=call.idempotency_key,
            )
            return self._told(self.calls.carry_out(who, made, wait=wait))
        except Problem as problem:
            if problem.kind is problems.NOT_THERE and call.name not in (LOOK, CONNECT):
                raise UnknownTool(f"There is no tool {call.name}: tools/list has those there are") from None
            return _fault(problem.detail, *map(_misfit, problem.errors))
        except (BadInput, Misconfigured, NotInState, PolicyDenied, KeyReused) as error:
            return _fault(str(error))
        except Unavailable as error:
            return _fault(Problem.not_now(error).detail)

    def _told(self, row: Record) -> dict[str, Any]:
        """A tool's job, as a model needs it."""
        told = shapes.tool_answer(row, self.workflows)
        answer: dict[str, Any] = {"outcome": told.outcome, "job": told.job.id}
        if told.result is not None:
            answer["result"] = told.result
        if told.reason is not None:
            answer["reason"] = told.reason
        if told.outcome is Outcome.NEEDS_CONSENT and told.job.consent is not None:
            answer["missing_scopes"] = told.job.consent.missing_scopes
        if (next_step := _NEXT.get(told.outcome)) is not None:
            answer["next"] = next_step
        return _result(answer, is_error=told.outcome in _ENDED_BADLY)

    def _connect(self, who: Caller, job: str) -> dict[str, Any]:
        """A link for the consent that a job waits for. Raises Problem, and what `invite` raises."""
        _allow(who, May.CONNECT)
        consent = shapes.job(found_job(self.requests, who, job)).consent
        if consent is None:
            raise BadInput(f"{job} waits for nobody's consent: {LOOK} says what it waits for")
        if consent.user is None:
            raise BadInput(f"{job} waits for an account that an operator connects, and no person: tell them so")
        made = self.invitations.invite(
            who,
            consent.user,
            consent.connection,
            scopes=None,
            return_to=None,
            keyed=Keyed(key=None, document={}),
            now=self.clock(),
        )
        return _result({"url": made.url, "expires_at": made.expires_at.isoformat(), "for": made.key.principal})


def _listed(action: type[Action[Any]]) -> dict[str, Any]:
    """A tool without the schema of its result, which what is answered while its job goes on does not fit."""
    return {name: value for name, value in tools.for_mcp(action).items() if name != "outputSchema"}


def _own_tool(name: str, says: str, *, reads: bool) -> dict[str, Any]:
    annotations = {"readOnlyHint": reads, "destructiveHint": False, "idempotentHint": reads, "openWorldHint": False}
    return {"name": name, "description": says, "inputSchema": _OfAJob.model_json_schema(), "annotations": annotations}


def _job(call: NamedCall) -> str:
    try:
        return _OfAJob.model_validate(call.arguments).job
    except ValidationError as error:
        raise BadInput(said(misfits(error, "arguments", model=_OfAJob))) from None


def _allow(who: Caller, needed: May) -> None:
    if needed not in ROLES[who.role]:
        raise Problem(problems.NOT_ALLOWED, f"A key of role {who.role} may not {needed}.")


def _result(told: Mapping[str, Any], *, is_error: bool = False) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": json.dumps(told, ensure_ascii=False)}], "isError": is_error}


def _fault(detail: str, *more: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": "\n".join((detail, *more))}], "isError": True}


def _misfit(error: Mapping[str, str]) -> str:
    return f"{error['where']}: {error['why']}"


def said(errors: list[dict[str, str]]) -> str:
    return "; ".join(map(_misfit, errors))
