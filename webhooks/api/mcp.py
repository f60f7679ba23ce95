"""The tools as an MCP server gives them: a model's client lists and calls them with a key of the agents' API.

Streamable HTTP, revision 2025-11-25 (modelcontextprotocol.io/specification/2025-11-25/basic/transports), without
sessions and without streams: each request is answered by itself, in JSON, and by any process. As whom the client acts
stands in the address that it was given; a model cannot choose it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flask import Response, jsonify, request
from flask_openapi.blueprint import APIBlueprint
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from identity.api_keys import Caller
from identity.errors import BadInput, Misconfigured, NotInState, PolicyDenied, Unavailable
from pipeline import tools
from pipeline.accounts.invitations import Invitations
from pipeline.action import Action
from pipeline.ledger.paging import Record
from pipeline.ledger.requests import KeyReused
from pipeline.requests import Keyed, Requests
from pipeline.workflow import Registry
from webhooks import problems
from webhooks.api import shapes
from webhooks.api.access import ROLES, May, caller
from webhooks.api.job_models import LONGEST_WAIT, Outcome
from webhooks.api.jobs import found_job
from webhooks.api.models import Id, Query
from webhooks.api.tool_calls import ToolCall, ToolCalls
from webhooks.misfits import misfits
from webhooks.problems import Problem

PATH = "/mcp"
REVISIONS = ("2025-11-25", "2025-06-18")  # newest first; in those before, several requests may be sent as one
_NO_REQUEST, _NO_METHOD, _BAD_PARAMS = -32600, -32601, -32602  # JSON-RPC 2.0 §5.1

LOOK = "aswhom__look_at_job"
CONNECT = "aswhom__connect_link"

_INSTRUCTIONS = (
    "Each tool is carried out by a job, as the person or service that this connection is for. A call that takes long, "
    f"or waits for a person, is answered with its job before it has ended: it goes on by itself. Do not call the tool "
    f"again for it; ask {LOOK} what became of the job."
)


class Address(Query):
    """What stands in the address of the server."""

    identifier: Id = Field(description="as whom its calls are made, as `identifier` of execute has it")
    wait: float = Field(LONGEST_WAIT, ge=0, le=LONGEST_WAIT)  # seconds; clients give a call up after a minute


class _Message(BaseModel):
    """A JSON-RPC request, or a notification, which has no id and is not answered."""

    model_config = ConfigDict(extra="ignore")

    jsonrpc: str = Field(pattern=r"^2\.0$")
    id: str | int | None = None
    method: str = Field(max_length=100)
    params: dict[str, Any] = Field(default_factory=dict)


class _Call(BaseModel):
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


class _RpcError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class _Server:
    """What a request is answered from."""

    calls: ToolCalls
    requests: Requests
    invitations: Invitations
    workflows: Registry
    clock: Callable[[], datetime]

    def answer(self, who: Caller, at: Address, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """The result of one request. Raises _RpcError."""
        match method:
            case "initialize":
                return _initialized(params)
            case "ping":
                return {}
            case "tools/list":
                return {"tools": self._tools(who)}
            case "tools/call":
                try:
                    call = _Call.model_validate(params)
                except ValidationError as error:
                    raise _RpcError(_BAD_PARAMS, _said(misfits(error, "params"))) from None
                return self._called(who, at, call)
        raise _RpcError(_NO_METHOD, f"There is no method {method} here: this server has tools")

    def _tools(self, who: Caller) -> list[dict[str, Any]]:
        offered = self.calls.offered(who) if May.EXECUTE in ROLES[who.role] else ()
        listed = [_listed(action) for action in offered]
        own = [(LOOK, _LOOK_SAYS, True)]
        if May.CONNECT in ROLES[who.role]:
            own.append((CONNECT, _CONNECT_SAYS, False))
        return listed + [_own_tool(name, says, reads=reads) for name, says, reads in own]

    def _called(self, who: Caller, at: Address, call: _Call) -> dict[str, Any]:
        """A fault that a model, or whoever set this up, can do something about is a result: models see no errors."""
        try:
            if call.name == LOOK:
                return self._told(found_job(self.requests, who, _job(call)))
            if call.name == CONNECT:
                return self._connect(who, _job(call))
            _allow(who, May.EXECUTE)
            made = ToolCall(
                tool=call.name,
                identifier=at.identifier,
                parameters=call.arguments,
                idempotency_key=call.idempotency_key,
            )
            return self._told(self.calls.carry_out(who, made, wait=timedelta(seconds=at.wait)))
        except Problem as problem:
            if problem.kind is problems.NOT_THERE and call.name not in (LOOK, CONNECT):
                raise _RpcError(_BAD_PARAMS, f"There is no tool {call.name}: tools/list has those there are") from None
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


def mcp_endpoint(
    pages: APIBlueprint,
    calls: ToolCalls,
    requests: Requests,
    invitations: Invitations,
    workflows: Registry,
    *,
    base_url: str,
    clock: Callable[[], datetime],
) -> None:
    """Add the MCP server. *base_url* is ours: scripts of pages of other origins are refused."""
    server = _Server(calls=calls, requests=requests, invitations=invitations, workflows=workflows, clock=clock)

    @pages.post(PATH, doc_ui=False)
    def mcp(query: Address) -> Response:
        _refuse_strangers(base_url)
        try:
            message = _Message.model_validate(request.get_json())
        except ValidationError as error:
            return _rpc(None, error={"code": _NO_REQUEST, "message": _said(misfits(error))}, status=400)
        if message.id is None:
            return Response(status=202)
        try:
            return _rpc(message.id, result=server.answer(caller(), query, message.method, message.params))
        except _RpcError as error:
            return _rpc(message.id, error={"code": error.code, "message": str(error)})


def _refuse_strangers(base_url: str) -> None:
    """Raises Problem for a page of somebody else's, and for a revision of the protocol that is not known."""
    origin = request.headers.get("Origin")
    if origin is not None and origin != base_url:  # which could come by a name that leads to this address
        raise Problem(problems.NOT_ALLOWED, f"A page of another origin than {base_url} may not ask this.")
    asked = request.headers.get("MCP-Protocol-Version")  # which the first request has not
    if asked is not None and asked not in REVISIONS:
        known = ", ".join(REVISIONS)
        raise Problem(problems.MALFORMED, f"MCP-Protocol-Version is none of those known here: {known}.")


def _initialized(params: Mapping[str, Any]) -> dict[str, Any]:
    asked = params.get("protocolVersion")
    return {
        "protocolVersion": asked if asked in REVISIONS else REVISIONS[0],
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "aswhom", "version": "1"},
        "instructions": _INSTRUCTIONS,
    }


def _listed(action: type[Action[Any]]) -> dict[str, Any]:
    """A tool without the schema of its result, which what is answered while its job goes on does not fit."""
    return {name: value for name, value in tools.for_mcp(action).items() if name != "outputSchema"}


def _own_tool(name: str, says: str, *, reads: bool) -> dict[str, Any]:
    annotations = {"readOnlyHint": reads, "destructiveHint": False, "idempotentHint": reads, "openWorldHint": False}
    return {"name": name, "description": says, "inputSchema": _OfAJob.model_json_schema(), "annotations": annotations}


def _job(call: _Call) -> str:
    try:
        return _OfAJob.model_validate(call.arguments).job
    except ValidationError as error:
        raise BadInput(_said(misfits(error, "arguments", model=_OfAJob))) from None


def _allow(who: Caller, needed: May) -> None:
    if needed not in ROLES[who.role]:
        raise Problem(problems.NOT_ALLOWED, f"A key of role {who.role} may not {needed}.")


def _result(told: Mapping[str, Any], *, is_error: bool = False) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": json.dumps(told, ensure_ascii=False)}], "isError": is_error}


def _fault(detail: str, *more: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": "\n".join((detail, *more))}], "isError": True}


def _misfit(error: Mapping[str, str]) -> str:
    return f"{error['where']}: {error['why']}"


def _said(errors: list[dict[str, str]]) -> str:
    return "; ".join(map(_misfit, errors))


def _rpc(id: str | int | None, *, status: int = 200, **told: Any) -> Response:
    response = jsonify(jsonrpc="2.0", id=id, **told)
    response.status_code = status
    return response
