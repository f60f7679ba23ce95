"""Operations on jobs: what was done, as whom, and why. An agent's key sees only its own agent's jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from flask import Response
from flask_openapi.blueprint import APIBlueprint
from sqlalchemy import Connection

from identity.agents.api_keys import Caller, Role
from identity.agents.identifiers import user_named
from identity.hold import HELD_FOR_OTHERS, find_hold
from pipeline.agents_api.callers import Keyed, Requests
from pipeline.authoring.registry import Registry
from pipeline.authoring.tool_workflows import tool_of
from pipeline.authoring.tools import plain_name
from pipeline.ledger.paging import Page, Record
from pipeline.states import JobState
from pipeline.views import tenant_views
from pipeline.views.tenant_views import Tenants
from webhooks.api import shapes
from webhooks.api.access import caller
from webhooks.api.answers import answer, answer_page
from webhooks.api.job_models import JobPage, JobQuery, JobsQuery, JobWithSteps
from webhooks.api.models import IdempotencyHeader, Nothing, OnePath
from webhooks.bells import Bells
from webhooks.problems import Problem


def job_operations(
    pages: APIBlueprint, requests: Requests, workflows: Registry, bells: Bells, *, clock: Callable[[], datetime]
) -> None:
    @pages.get("/jobs", responses={200: JobPage})
    def list_jobs(query: JobsQuery) -> Response:
        """List the jobs, newest first."""
        who, wanted = caller(), query.turn()

        def look(connection: Connection) -> Page:
            page = tenant_views.jobs_page(
                connection,
                who.tenant,
                wanted,
                state=query.state,
                agent=_only(who),
                workflow=query.workflow,
                tool=None if query.tool is None else plain_name(query.tool),
                pattern=query.pattern,
                user=None if query.user is None else user_named(connection, who.tenant, query.user).id,
                wait=query.wait,
            )
            return replace(page, rows=_told(connection, [row for row in page.rows if _sees(who, row)]))

        page = requests.read(look)
        return answer_page(map(shapes.job, page.rows), next=page.next)

    @pages.get("/jobs/<id>", responses={200: JobWithSteps})
    def show_job(path: OnePath, query: JobQuery) -> Response:
        """Show one job with its steps: what, as whom, by which pattern, and why.

        Until the job has ended, Retry-After says when to look again, however long the response was delayed.
        """
        who = caller()
        row = found_job(requests, who, path.id)
        if query.wait:
            requests.wait(who, path.id, within=timedelta(seconds=query.wait))
            row = found_job(requests, who, path.id)
        response = answer(shapes.job_with_steps(row, workflows))
        if (seconds := shapes.look_again(row, clock())) is not None:
            response.headers["Retry-After"] = str(seconds)
        return response

    @pages.post("/jobs/<id>/cancel", responses={200: JobWithSteps})
    def cancel_job(path: OnePath, header: IdempotencyHeader, body: Nothing) -> Response:
        """Cancel a job: at once if it is queued or waits, at its next step if it runs.

        A job that is already stopping or cancelled is returned as it stands.
        """
        who = caller()
        found_job(requests, who, path.id)
        keyed = Keyed(key=header.idempotency_key, document={"cancel": path.id})
        ended = requests.cancel(who, path.id, keyed, now=clock())
        return answer(shapes.job_with_steps(there(ended.row), workflows))

    @pages.post("/jobs/<id>/replay", responses={202: JobWithSteps})
    def replay_job(path: OnePath, header: IdempotencyHeader, body: Nothing) -> Response:
        """Accept a dead or cancelled job anew; what it did is not done again."""
        who = caller()
        tool = tool_of(found_job(requests, who, path.id)["workflow"])
        if tool is not None and not who.may_execute(tool):
            raise Problem.not_there(f"tool {tool}", listed="tools")
        keyed = Keyed(key=header.idempotency_key, document={"replay": path.id})
        accepted = requests.replay(who, path.id, keyed, now=clock())
        response = answer(shapes.job_with_steps(there(accepted.row), workflows), 202)
        bells.ring_after(response, bells=accepted.bells)
        return response


def found_job(requests: Requests, who: Caller, id: str) -> Record:
    """Return the job if the caller may see it; a hold that keeps it waiting shows as its reason. Raises Problem."""

    def look(connection: Connection) -> Record | None:
        row = tenant_views.job(connection, Tenants.of(who.tenant), id, agent=_only(who))
        return None if row is None or not _sees(who, row) else _told(connection, [row])[0]

    return there(requests.read(look))


def _told(connection: Connection, rows: Sequence[Record]) -> Sequence[Record]:
    """Return the jobs; during a hold, queued ones show it as their reason."""
    waits = [row["state"] == JobState.QUEUED for row in rows]
    if not any(waits) or find_hold(connection) is None:
        return rows
    return [{**row, "reason": HELD_FOR_OTHERS} if held else row for row, held in zip(rows, waits, strict=True)]


def there(row: Record | None) -> Record:
    """Return the job, or raise Problem if there is none."""
    if row is None:
        raise Problem.not_there("such job", listed="jobs")
    return row


def _sees(who: Caller, row: Record) -> bool:
    """True if the caller may see the job: a key limited to some users sees no other user's jobs."""
    return row["user_id"] is None or who.acts_as(row["user_id"])


def _only(who: Caller) -> str | None:
    return who.agent if who.role is Role.AGENT else None
