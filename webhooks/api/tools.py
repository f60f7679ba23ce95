"""Operations on tools: list the catalogue, show one, and execute one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from flask import Response, jsonify, request
from flask_openapi.blueprint import APIBlueprint

from pipeline.action import Action
from pipeline.authoring import tools
from pipeline.authoring.registry import Registry
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
    @pages.get("/tools", responses={200: Catalogue, 304: None})
    def list_tools(query: CatalogueQuery) -> Response:
        """List the tools this key may execute, with JSON Schemas, or in a model API's format.

        304: unchanged since the response whose ETag is in If-None-Match.
        """
        offered = calls.offered(caller(), identifier=query.identifier, provider=query.provider)
        response = jsonify(tools=[_formed(action, query.format) for action in offered])
        response.headers["Cache-Control"] = "private, no-cache"  # cached, but revalidated before each use
        response.add_etag()
        etag, _ = response.get_etag()
        if etag is not None and request.if_none_match.contains_weak(etag):
            response.status_code = 304
        return response

    @pages.get("/tools/<tool>", responses={200: OneTool})
    def show_tool(path: ToolPath, query: ToolQuery) -> Response:
        """Show one tool, as the catalogue has it."""
        return jsonify(_formed(calls.tool(caller(), path.tool), query.format))

    @pages.post("/tools/<tool>/execute", responses={200: ToolAnswer, 202: ToolAnswer})
    def execute_tool(path: ToolPath, header: IdempotencyHeader, body: ExecuteBody) -> Response:
        """Execute a tool as the principal that `identifier` names.

        200: the job has ended, and `outcome` says how. 202: it has not ended yet; look at the job again.
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
