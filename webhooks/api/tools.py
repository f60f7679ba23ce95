"""The operations on tools: the catalogue, and carrying one out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from flask import Response, jsonify, request
from flask_openapi.blueprint import APIBlueprint

from pipeline import tools
from pipeline.action import Action
from pipeline.workflow import Registry
from webhooks.api import shapes
from webhooks.api.access import caller
from webhooks.api.answers import answer
from webhooks.api.job_models import (
    Catalogue,
    CatalogueQuery,
    ExecuteBody,
    Form,
    OneTool,
    ToolAnswer,
    ToolPath,
    ToolQuery,
)
from webhooks.api.models import IdempotencyHeader
from webhooks.api.tool_calls import ToolCall, ToolCalls


def tool_operations(
    pages: APIBlueprint, calls: ToolCalls, workflows: Registry, *, clock: Callable[[], datetime]
) -> None:
    """Add the operations on tools."""

    @pages.get("/tools", responses={200: Catalogue, 304: None})
    def list_tools(query: CatalogueQuery) -> Response:
        """The tools this key may execute, with JSON Schemas, or in the form that a model's API takes.

        304: they are as If-None-Match has them, which is the ETag of an answer before.
        """
        offered = calls.offered(caller(), identifier=query.identifier, provider=query.provider)
        response = jsonify(tools=[_formed(action, query.format) for action in offered])
        response.headers["Cache-Control"] = "private, no-cache"  # kept by whoever asks again whether it is so yet
        response.add_etag()
        etag, _ = response.get_etag()
        if etag is not None and request.if_none_match.contains_weak(etag):
            response.status_code = 304
        return response

    @pages.get("/tools/<tool>", responses={200: OneTool})
    def show_tool(path: ToolPath, query: ToolQuery) -> Response:
        """One tool, as the catalogue has it."""
        return jsonify(_formed(calls.tool(caller(), path.tool), query.format))

    @pages.post("/tools/<tool>/execute", responses={200: ToolAnswer, 202: ToolAnswer})
    def execute_tool(path: ToolPath, header: IdempotencyHeader, body: ExecuteBody) -> Response:
        """Carry out a tool as whom `identifier` says.

        200: the job has ended, and `outcome` says how. 202: it has not yet; look at the job again.
        """
        call = ToolCall(
            tool=path.tool,
            identifier=body.identifier,
            parameters=body.parameters,
            idempotency_key=header.idempotency_key,
        )
        row = calls.carry_out(caller(), call, wait=timedelta(seconds=body.wait))
        response = answer(shapes.tool_answer(row, workflows))
        if (seconds := shapes.look_again(row, clock())) is not None:
            response.status_code = 202
            response.headers["Retry-After"] = str(seconds)
        response.headers["Location"] = f"/v1/jobs/{row['id']}"
        return response


def _formed(action: type[Action[Any]], form: Form) -> dict[str, Any]:
    return tools.described(action) if form is Form.PLAIN else tools.FORMS[form](action)
