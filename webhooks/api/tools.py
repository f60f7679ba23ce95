"""Tools: the catalogue, and carrying one out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from flask import Response, jsonify, request
from flask_openapi.blueprint import APIBlueprint
from pydantic import ValidationError

from identity.api_keys import Caller
from identity.errors import Unavailable
from pipeline import tools
from pipeline.action import Action
from pipeline.ledger.paging import Record
from pipeline.ledger.requests import Made
from pipeline.requests import Keyed, Requests
from pipeline.workflow import Registry
from webhooks import problems
from webhooks.api import shapes
from webhooks.api.access import caller, makes, request_id
from webhooks.api.answers import answer
from webhooks.api.job_models import Catalogue, CatalogueQuery, ExecuteBody, Form, OneTool, ToolAnswer, ToolPath
from webhooks.api.jobs import found_job, there
from webhooks.api.models import IdempotencyHeader
from webhooks.bells import Bells
from webhooks.problems import Problem

log = logging.getLogger(__name__)


def tool_operations(
    pages: APIBlueprint, requests: Requests, workflows: Registry, bells: Bells, *, clock: Callable[[], datetime]
) -> None:
    """Add the operations on tools."""

    @pages.get("/tools", responses={200: Catalogue, 304: None})
    def list_tools(query: CatalogueQuery) -> Response:
        """The tools this key may execute, with JSON Schemas, or in the form that a model's API takes.

        304: they are as If-None-Match has them, which is the ETag of an answer before.
        """
        who = caller()
        allowed = [action for name, action in workflows.tools.items() if who.may_execute(name)]
        response = jsonify(tools=[_formed(action, query.format) for action in allowed])
        response.headers["Cache-Control"] = "private, no-cache"  # kept by whoever asks again whether it is so yet
        response.add_etag()
        etag, _ = response.get_etag()
        if etag is not None and request.if_none_match.contains_weak(etag):
            response.status_code = 304
        return response

    @pages.get("/tools/<tool>", responses={200: OneTool})
    def show_tool(path: ToolPath, query: CatalogueQuery) -> Response:
        """One tool, as the catalogue has it."""
        return jsonify(_formed(_tool(workflows, path.tool, caller()), query.format))

    @pages.post("/tools/<tool>/execute", responses={200: ToolAnswer, 202: ToolAnswer})
    def execute_tool(path: ToolPath, header: IdempotencyHeader, body: ExecuteBody) -> Response:
        """Carry out a tool as whom `identifier` says.

        200: the job has ended, and `outcome` says how. 202: it has not yet; look at the job again.
        """
        who = caller()
        name, now = tools.plain_name(path.tool), clock()
        wanted = {"tool": name, "identifier": body.identifier, "parameters": body.parameters}
        keyed = Keyed(key=header.idempotency_key, document=wanted)
        try:
            action = _filled(_tool(workflows, path.tool, who), body.parameters)
        except Problem:
            # What was accepted before the tool became another, or went, is told of as it was.
            before = requests.job_before(who, keyed, now=now) if who.may_execute(name) else None
            if before is None:
                raise
            made = before
        else:
            made = requests.execute(who, action, keyed, identifier=body.identifier, request=request_id(), now=now)
        makes(made.id)
        if made.bells:
            # Before the wait, not after the answer: nobody waits for a job that nobody was told of.
            bells.ring_now(bells=made.bells)
        row = _after_a_wait(requests, who, made, within=timedelta(seconds=body.wait))
        response = answer(shapes.tool_answer(row, workflows))
        if (seconds := shapes.look_again(row, clock())) is not None:
            response.status_code = 202
            response.headers["Retry-After"] = str(seconds)
        response.headers["Location"] = f"/v1/jobs/{made.id}"
        return response


def _after_a_wait(requests: Requests, who: Caller, made: Made, *, within: timedelta) -> Record:
    """How the job stands then; where the ledger does not say, how it was accepted. Raises Problem.

    It is in the ledger: whoever were told to send it again would have it done twice.
    """
    try:
        requests.wait(who, made.id, within=within)
        return found_job(requests, who, made.id)
    except Unavailable as error:
        log.warning("a job is not waited for: %s", error, extra={"action": "api.not_waited", "job": made.id})
        return there(made.row)


def _formed(action: type[Action[Any]], form: Form) -> dict[str, Any]:
    return tools.described(action) if form is Form.PLAIN else tools.FORMS[form](action)


def _tool(workflows: Registry, name: str, who: Caller) -> type[Action[Any]]:
    """The tool of that name, as far as the key covers it. Raises Problem."""
    action = tools.named(workflows, name)
    if action is None or not who.may_execute(action.action_name()):
        raise Problem.not_there(f"tool {name}", listed="tools")
    return action


def _filled(tool: type[Action[Any]], parameters: dict[str, Any]) -> Action[Any]:
    try:
        return tool.model_validate(parameters)
    except ValidationError as error:
        detail = f"The parameters do not fit {tool.action_name()}: see errors, and its schema."
        raise Problem(problems.UNUSABLE, detail, errors=problems.misfits(error, "parameters")) from None
