"""Jobs: what was done, as whom, and why. An agent's key sees its own agent's alone."""

from __future__ import annotations

from flask import Response, jsonify
from flask_openapi.blueprint import APIBlueprint

from identity.api_keys import Caller, Role
from pipeline.ledger import views
from pipeline.ledger.paging import Row
from pipeline.requests import Requests
from webhooks import problems
from webhooks.api import shapes
from webhooks.api.access import caller
from webhooks.api.models import JobPage, JobsQuery, JobWithSteps, OnePath
from webhooks.api.pages import turn
from webhooks.cursors import cursor
from webhooks.problems import Problem


def job_operations(pages: APIBlueprint, requests: Requests) -> None:
    """Add the operations on jobs."""

    @pages.get("/jobs", responses={200: JobPage})
    def list_jobs(query: JobsQuery) -> Response:
        """The jobs, newest first."""
        who, wanted = caller(), turn(query)
        page = requests.read(
            lambda c: views.jobs_page(
                c, who.tenant, wanted, agent=_only(who), state=query.state, workflow=query.workflow
            )
        )
        items = [shapes.job(row).model_dump(mode="json") for row in page.rows]
        return jsonify(items=items, next=cursor(page.next))

    @pages.get("/jobs/<id>", responses={200: JobWithSteps})
    def show_job(path: OnePath) -> Response:
        """One job with its steps: what, as whom, by which pattern, and why."""
        return jsonify(shapes.job_with_steps(found_job(requests, caller(), path.id)).model_dump(mode="json"))


def found_job(requests: Requests, who: Caller, id: str) -> Row:
    """The job, as far as the caller may see it. Raises Problem."""
    row = requests.read(lambda c: views.job(c, who.tenant, id, agent=_only(who)))
    if row is None:
        raise Problem(problems.NOT_THERE, "There is no such job for this key. GET /v1/jobs lists those there are.")
    return row


def _only(who: Caller) -> str | None:
    return who.agent if who.role is Role.AGENT else None
