"""Pages of jobs: a list with filters, and the history of each."""

from __future__ import annotations

from flask import Blueprint, request
from sqlalchemy import Connection
from werkzeug.wrappers import Response as BaseResponse

from identity.accounts.states import Account, find_account
from identity.model import AccessPattern
from identity.tenants import Tenants
from pipeline.desk.unanswered import UnansweredCall, asked_about, by_step
from pipeline.jobs.awaited import consenting
from pipeline.ledger.paging import Record
from pipeline.states import CUT_SHORT, ENDED, JobState, Wait
from pipeline.views import audit_queries, operator_queries, tenant_views
from pipeline.views.audit_queries import Search
from pipeline.views.tenant_views import JobFilter
from pipeline.views.wording import started_by
from webhooks.console import lists
from webhooks.console.access import listed_tenants, seen, visitor
from webhooks.console.parts import Desk
from webhooks.console.timeline import timeline
from webhooks.cursors import cursor
from webhooks.pages import page

RECORDS = 500  # audit records that a job's page reads


def job_pages(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/jobs")
    def jobs() -> BaseResponse:
        wanted = JobFilter(
            state=lists.chosen("state", [str(state) for state in JobState]),
            workflow=lists.chosen("workflow"),
            pattern=lists.chosen("pattern", [str(pattern) for pattern in AccessPattern]),
            wait=lists.chosen("wait", [str(wait) for wait in Wait]),
            user=lists.chosen("user"),
            agent=lists.chosen("agent"),
            since=lists.moment("since"),
            until=lists.moment("until"),
        )
        tenants, turn = listed_tenants(), lists.turn()
        found = desk.read(lambda c: tenant_views.jobs_page(c, tenants, turn, wanted))
        names = sorted(workflow.name for workflow in desk.workflows)
        return page(
            "console/jobs.html",
            found=found,
            next=cursor(found.next),
            wanted=vars(wanted),
            states=list(JobState),
            patterns=list(AccessPattern),
            waits=list(Wait),
            workflows=names,
        )

    @pages.get("/jobs/<id>")
    def job(id: str) -> BaseResponse:
        return job_page(desk, id)


def job_page(desk: Desk, id: str, status: int = 200, wrong: str | None = None) -> BaseResponse:
    """Render a job's page; *wrong*: the error of a submitted form, which is shown again as it was filled in."""

    def read(c: Connection) -> tuple[Record, str, list[Record], list[Record], Account | None]:
        found = found_job(c, id)
        records = audit_queries.found(c, Search(tenants=Tenants.of(found["tenant_id"]), job=id), limit=RECORDS + 1)
        return found, started_by(c, found), records, operator_queries.compensation_of(c, id), _consents(c, found)

    found, started, records, compensations, consents = desk.read(read)
    return page(
        "console/job.html",
        status,
        job=found,
        wrong=wrong,
        sent=request.form.getlist("call"),
        written=request.form,
        started_by=started,
        consents=consents,
        moments=timeline(found, started, records[:RECORDS], compensations),
        left_out=len(records) > RECORDS and RECORDS,
        in_doubt=_in_doubt(found),
        may_cancel=found["state"] not in ENDED | {JobState.STOPPING},
        may_replay=found["state"] in CUT_SHORT and found["pruned_at"] is None,
    )


def found_job(c: Connection, id: str) -> Record:
    """Return the job with its steps if the visitor may see or act on it. Raises NotThere, NotForYou."""
    return seen(tenant_views.job(c, visitor().sees(), id))


def _consents(c: Connection, job: Record) -> Account | None:
    """Return the account that the job waits for, if it has a row yet."""
    key = consenting(job["waits_for"]) if job["state"] == JobState.WAITING else None
    return None if key is None else find_account(c, key)


def _in_doubt(job: Record) -> list[list[UnansweredCall]]:
    """Return the calls, by step, that a person may resolve: for a waiting job, those of the step it asks about."""
    if job["state"] in ENDED:
        return by_step(job["steps"])
    waits = job["state"] == JobState.WAITING and job["wait"] == Wait.UNKNOWN
    return [calls] if waits and (calls := asked_about(job["steps"])) else []
