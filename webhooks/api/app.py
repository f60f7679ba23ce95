"""Assembly of the API: its operations, its OpenAPI document, and its problem documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from flask import Response
from flask_openapi.blueprint import APIBlueprint
from flask_openapi.models.info import Info
from flask_openapi.openapi import OpenAPI
from pydantic import ValidationError

from identity.agents.identifiers import UnknownIdentifier
from identity.errors import BadInput, Misconfigured, NotInState, PolicyDenied
from identity.ids import Ids
from pipeline.accounts.invitations import Invitations
from pipeline.agents_api.callers import Requests
from pipeline.agents_api.requests import KeyReused, NotLetIn
from pipeline.authoring.registry import Registry
from webhooks import problems
from webhooks.api.access import guard, refused
from webhooks.api.accounts import account_operations
from webhooks.api.answer_headers import HEADERS, with_headers
from webhooks.api.deliveries import delivery_operations
from webhooks.api.jobs import job_operations
from webhooks.api.mcp import mcp_endpoint
from webhooks.api.models import ProblemDocument
from webhooks.api.other_endpoints import SCHEMES, beside
from webhooks.api.revocations import revocation_operations
from webhooks.api.tool_calls import ToolCalls
from webhooks.api.tools import tool_operations
from webhooks.bells import Bells
from webhooks.problems import Problem
from webhooks.quota import Counts
from webhooks.validation_errors import misfits

VERSION = "1"
DOCUMENT = "/v1/openapi.json"
_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
#: Responses common to all operations.
PROBLEMS = {
    "400": "The body cannot be read",
    "401": "No key, or one that is not accepted",
    "403": "The key's role does not allow it, or its agent is stopped",
    "404": "Not found in this tenant",
    "409": "Its state does not allow this, or an operator must set something up first",
    "413": "The body is too large",
    "415": "The body is not JSON",
    "422": "The request cannot be used as it is",
    "429": "Too many requests",
    "500": "An internal error, whose reason is in the log",
    "503": "Temporarily unavailable; the detail says whether anything was stored",
}


@dataclass(frozen=True, kw_only=True)
class Agents:
    """The services behind the API."""

    requests: Requests
    invitations: Invitations
    workflows: Registry
    quota: Counts


def make_app() -> OpenAPI:
    """Create a Flask app that collects the API's document."""
    app = OpenAPI(
        "webhooks",
        info=Info(
            title="Aswhom", version=VERSION, description="Lets agents act on customers' APIs, and decides as whom."
        ),
        security_schemes={"key": {"type": "http", "scheme": "bearer"}},
        validation_error_callback=unusable,
        validation_error_model=ProblemDocument,
        doc_ui=False,
        static_folder=None,
    )
    app.openapi_version = "3.1.0"
    return app


def install(app: OpenAPI, agents: Agents, bells: Bells, *, base_url: str, clock: Callable[[], datetime]) -> None:
    """Serve the agents' API from *app*, which is reached at *base_url*."""
    pages = operations(agents, bells, base_url=base_url, clock=clock)
    app.register_api(pages)

    @app.get(DOCUMENT, doc_ui=False)
    def openapi() -> Response:
        return Response(text, content_type="application/json")

    text = json.dumps(document(app))  # after every route is registered


def operations(agents: Agents, bells: Bells, *, base_url: str, clock: Callable[[], datetime]) -> APIBlueprint:
    """Build the blueprint of all operations, behind the guard."""
    answers: Any = {status: {"description": said, "content": _PROBLEM} for status, said in PROBLEMS.items()}
    pages = APIBlueprint(
        "v1",
        __name__,
        url_prefix="/v1",
        abp_responses=answers,
        abp_security=[{"key": []}],
        operation_id_callback=_operation_id,
    )
    guard(pages, agents.requests, agents.quota, clock=clock, ids=Ids())
    calls = ToolCalls(agents.requests, agents.workflows, bells, clock=clock)
    tool_operations(pages, calls, agents.workflows, clock=clock)
    mcp_endpoint(
        pages,
        calls,
        agents.requests,
        agents.workflows,
        base_url=base_url,
        clock=clock,
    )
    job_operations(pages, agents.requests, agents.workflows, bells, clock=clock)
    account_operations(pages, agents.requests, agents.invitations, agents.workflows, clock=clock)
    delivery_operations(pages, agents.requests)
    revocation_operations(pages, agents.requests, bells, clock=clock)

    @pages.errorhandler(BadInput)
    def bad_input(error: BadInput) -> Response:
        return Problem(problems.UNUSABLE, str(error)).document()

    @pages.errorhandler(UnknownIdentifier)
    def unknown_identifier(error: UnknownIdentifier) -> Response:
        return Problem(problems.UNKNOWN_IDENTIFIER, str(error)).document()

    @pages.errorhandler(NotInState)
    def not_in_state(error: NotInState) -> Response:
        return Problem(problems.NOT_IN_STATE, str(error)).document()

    @pages.errorhandler(PolicyDenied)
    def denied(error: PolicyDenied) -> Response:
        return Problem(problems.NOT_ALLOWED, str(error)).document()

    @pages.errorhandler(Misconfigured)
    def not_set_up(error: Misconfigured) -> Response:
        return Problem(problems.NOT_SET_UP, str(error)).document()

    @pages.errorhandler(KeyReused)
    def reused(error: KeyReused) -> Response:
        return Problem(problems.KEY_REUSED, str(error)).document()

    @pages.errorhandler(NotLetIn)
    def not_let_in(error: NotLetIn) -> Response:
        return refused(error.why).document()

    return pages


def document(app: OpenAPI) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document: the API's operations and the other endpoints that machines call."""
    made: dict[str, Any] = app.api_doc
    components = made["components"]
    schemes = {**components["securitySchemes"], **SCHEMES}
    return {
        **made,
        "paths": {**with_headers(made["paths"]), **beside(app)},
        "components": {**components, "headers": dict(HEADERS), "securitySchemes": schemes},
    }


def unusable(error: ValidationError) -> NoReturn:
    """Raise the problem of a request that does not fit its model: where and why, never the value sent."""
    said = "Some of the request does not fit: see errors."
    raise Problem(problems.UNUSABLE, said, errors=misfits(error))


def _operation_id(*, name: str, path: str, method: str) -> str:
    return name
