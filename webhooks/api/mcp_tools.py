"""Tools of the MCP server: those of the agents' API, and one of its own that looks at a job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from identity.agents.api_keys import Caller
from identity.agents.identifiers import identify
from identity.errors import BadInput, Misconfigured, NotInState, PolicyDenied, Unavailable
from identity.model import Principal, PrincipalKind
from pipeline.action import Action
from pipeline.agents_api.callers import Requests
from pipeline.agents_api.requests import KeyReused
from pipeline.authoring import tools
from pipeline.authoring.registry import Registry
from pipeline.ledger.paging import Record
from webhooks import problems
from webhooks.api import mcp_words
from webhooks.api.access import ROLES, May, notes
from webhooks.api.jobs import found_job
from webhooks.api.mcp_words import LOOK, misfit, of_fault, said
from webhooks.api.models import Id, IdempotencyKey
from webhooks.api.tool_calls import NoSuchTool, ToolCall, ToolCalls
from webhooks.problems import Problem
from webhooks.validation_errors import misfits

_LOOK_SAYS = "What became of a job that an earlier call of a tool began."
_KEY = TypeAdapter(IdempotencyKey)

#: An object that may be omitted or null: some clients write null for what is absent.
Members = Annotated[dict[str, Any], BeforeValidator(lambda sent: {} if sent is None else sent)]


class UnknownTool(Exception):
    """No tool has that name; the message says which."""


class NamedCall(BaseModel):
    """Parameters of `tools/call`. An idempotency key comes in `_meta`."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(max_length=200)
    arguments: Members = Field(default_factory=dict)
    meta: Members = Field(default_factory=dict, alias="_meta")

    @property
    def idempotency_key(self) -> str | None:
        """Return the idempotency key, if any. Raises BadInput for an invalid one."""
        key = self.meta.get("idempotencyKey")
        try:
            return None if key is None else _KEY.validate_python(key, strict=True)
        except ValidationError:
            raise BadInput("idempotencyKey in _meta is 1 to 200 printable ASCII characters without spaces") from None


class _OfAJob(BaseModel):
    model_config = ConfigDict(extra="forbid")

    job: Id = Field(description="the `job` of the tool's answer")


@dataclass(frozen=True, kw_only=True)
class McpTools:
    """Lists and calls tools as the principal in the client's address, within the key's permissions."""

    calls: ToolCalls
    requests: Requests
    workflows: Registry
    clock: Callable[[], datetime]

    def check(self, who: Caller, identifier: str) -> Principal:
        """Return the principal that calls act as. Raises UnknownIdentifier, BadInput or PolicyDenied."""
        principal = self.requests.read(lambda c: identify(c, who.tenant, identifier)).principal
        if principal.kind is PrincipalKind.USER:
            who.check_user(principal.id)
        return principal

    def listed(self, who: Caller, identifier: str) -> list[dict[str, Any]]:
        """Return the tools usable as *identifier*. Raises UnknownIdentifier, BadInput or PolicyDenied."""
        offered = self.calls.offered(who, identifier=identifier)
        return [_listed(action) for action in offered if May.EXECUTE in ROLES[who.role]] + [_look_tool()]

    def called(self, who: Caller, identifier: str, call: NamedCall, *, wait: timedelta) -> dict[str, Any]:
        """Return the result of a call. Raises UnknownTool.

        A fault that a model, or the person who set this up, can act on is returned as a result: models do not see
        errors.
        """
        try:
            if call.name == LOOK:
                return self._look(who, identifier, _job(call), wait=wait)
            _allow(who, May.EXECUTE)
            made = ToolCall(
                tool=call.name,
                identifier=identifier,
                parameters=call.arguments,
                idempotency_key=call.idempotency_key,
            )
            return self._told(self.calls.carry_out(who, made, wait=wait), tool=tools.plain_name(call.name))
        except NoSuchTool:
            raise UnknownTool(f"There is no tool {call.name}: tools/list has those there are") from None
        except Problem as problem:
            if problem.kind is problems.NOT_THERE:
                return of_fault("There is no such job here. Ask for the `job` of an earlier answer.")
            return of_fault(problem.detail, *map(misfit, problem.errors))
        except (BadInput, Misconfigured, NotInState, PolicyDenied, KeyReused) as error:
            return of_fault(str(error))
        except Unavailable as error:
            if call.name == LOOK:
                return mcp_words.not_seen(error)
            return mcp_words.not_now(error, keyed=call.meta.get("idempotencyKey") is not None)

    def _look(self, who: Caller, identifier: str, job: str, *, wait: timedelta) -> dict[str, Any]:
        """Return a job of the principal the client acts as; a model never learns of other principals' jobs."""
        principal = self.check(who, identifier)
        user = principal.id if principal.kind is PrincipalKind.USER else None
        if found_job(self.requests, who, job)["user_id"] != user:
            raise Problem.not_there("such job", listed="jobs")
        self.requests.wait(who, job, within=wait)
        return self._told(found_job(self.requests, who, job), tool=LOOK)

    def _told(self, row: Record, *, tool: str) -> dict[str, Any]:
        outcome, result = mcp_words.of_job(row, self.workflows, now=self.clock())
        notes(tool=tool, outcome=str(outcome))
        return result


def _listed(action: type[Action[Any]]) -> dict[str, Any]:
    """Return a tool without its result schema, which the answer of an unfinished job would not fit."""
    return {name: value for name, value in tools.for_mcp(action).items() if name != "outputSchema"}


def _look_tool() -> dict[str, Any]:
    annotations = {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False}
    schema = _OfAJob.model_json_schema()
    return {"name": LOOK, "description": _LOOK_SAYS, "inputSchema": schema, "annotations": annotations}


def _job(call: NamedCall) -> str:
    try:
        return _OfAJob.model_validate(call.arguments).job
    except ValidationError as error:
        raise BadInput(said(misfits(error, "arguments", model=_OfAJob))) from None


def _allow(who: Caller, needed: May) -> None:
    if needed not in ROLES[who.role]:
        raise Problem(problems.NOT_ALLOWED, f"A key of role {who.role} may not {needed}.")
