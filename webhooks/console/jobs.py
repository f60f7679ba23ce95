"""Jobs: a list with filters, the story of each, and what a person can say about one."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from flask import Blueprint, redirect, request, url_for
from sqlalchemy import Connection
from werkzeug.wrappers import Response as BaseResponse

from identity.accounts import Account, find_account
from identity.errors import BadInput
from identity.model import AccessPattern
from pipeline.desk import jobs as acts
from pipeline.desk.telling import started_by
from pipeline.desk.unanswered import UnansweredCall, asked_about, by_step
from pipeline.ledger import audit_queries, queries, views
from pipeline.ledger.audit_queries import Search
from pipeline.ledger.jobs import consenting
from pipeline.ledger.paging import Record
from pipeline.model import Bell
from pipeline.states import CUT_SHORT, ENDED, JobState, Wait
from webhooks.console import lists
from webhooks.console.access import seen, seen_tenant, visitor
from webhooks.console.parts import Desk
from webhooks.console.timeline import timeline
from webhooks.cursors import cursor
from webhooks.pages import page

RECORDS = 500  # of the audit, that a job's page looks at


def job_pages(pages: Blueprint, desk: Desk) -> None:
    """Add the pages and acts of jobs."""

    @pages.get("/jobs")
    def jobs() -> BaseResponse:
        tenant = seen_tenant()
        wanted: dict[str, Any] = lists.between() | {
            "state": lists.chosen("state", [str(state) for state in JobState]),
            "workflow": lists.chosen("workflow"),
            "pattern": lists.chosen("pattern", [str(pattern) for pattern in AccessPattern]),
            "wait": lists.chosen("wait", [str(wait) for wait in Wait]),
            "user": lists.chosen("user"),
            "agent": lists.chosen("agent"),
        }
        turn = lists.turn()
        found = desk.read(lambda c: views.jobs_page(c, tenant, turn, **wanted))
        names = sorted(workflow.name for workflow in desk.console.workflows)
        return page(
            "console/jobs.html",
            found=found,
            next=cursor(found.next),
            wanted=wanted,
            states=list(JobState),
            patterns=list(AccessPattern),
            waits=list(Wait),
            workflows=names,
        )

    def show(id: str, status: int = 200, wrong: str | None = None) -> BaseResponse:
        """The page of a job; *wrong*: with the form that was sent as it was filled in, and what is wrong with it."""

        def read(c: Connection) -> tuple[Record, list[Record], list[Record], Account | None]:
            found = _found(c, id)
            records = audit_queries.found(c, Search(tenant=found["tenant_id"], job=id), limit=RECORDS + 1)
            return found, records, queries.compensation_of(c, id), _consents(c, found)

        found, records, compensations, consents = desk.read(read)
        return page(
            "console/job.html",
            status,
            job=found,
            wrong=wrong,
            sent=request.form.getlist("call"),
            written=request.form,
            started_by=started_by(found),
            consents=consents,
            moments=timeline(found, records[:RECORDS], compensations),
            left_out=len(records) > RECORDS and RECORDS,
            in_doubt=_in_doubt(found),
            may_cancel=found["state"] not in ENDED | {JobState.STOPPING},
            may_replay=found["state"] in CUT_SHORT and found["pruned_at"] is None,
        )

    @pages.get("/jobs/<id>")
    def job(id: str) -> BaseResponse:
        return show(id)

    @pages.route("/jobs/<id>/cancel", methods=["GET", "POST"])
    def cancel_job(id: str) -> BaseResponse:
        if request.method == "GET":  # a form that was refused is shown at this address: whoever comes back, looks
            return redirect(url_for("console.job", id=id), 303)
        desk.read(partial(_found, id=id))
        act, though_it_runs = desk.act(), request.form.get("running") == "yes"
        try:
            to = desk.write(partial(acts.cancel, id=id, act=act, though_it_runs=though_it_runs))
        except BadInput as error:
            return show(id, 422, wrong=str(error))
        return _back(id, "stopping" if to is JobState.STOPPING else "cancelled")

    @pages.post("/jobs/<id>/replay")
    def replay_job(id: str) -> BaseResponse:
        desk.read(partial(_found, id=id))
        act, subject = desk.act(), visitor().person.known_by
        rung = desk.write(lambda c: acts.replay_one(c, id, act, subject=subject))
        return _ringing(desk, _back(id, "replayed"), rung)

    @pages.route("/jobs/<id>/resolve", methods=["GET", "POST"])
    def resolve_job(id: str) -> BaseResponse:
        if request.method == "GET":  # as above
            return redirect(url_for("console.job", id=id), 303)
        desk.read(partial(_found, id=id))
        try:
            effect, result = _resolution_form()
            resolved = desk.write(
                partial(
                    acts.resolve,
                    id=id,
                    act=desk.act(),
                    effect=effect,
                    result=result,
                    workflows=desk.console.workflows,
                    calls=request.form.getlist("call"),
                )
            )
        except BadInput as error:
            return show(id, 422, wrong=str(error))
        return _ringing(desk, _back(id, "resolved"), resolved.bells, revocations=resolved.revocations)


def _found(c: Connection, id: str) -> Record:
    """The job with its steps, if the page or act at hand may have it. Raises NotThere, NotForYou."""
    return seen(views.job(c, None, id))


def _consents(c: Connection, job: Record) -> Account | None:
    """The account that the job waits for, where that has a row yet."""
    key = consenting(job["waits_for"]) if job["state"] == JobState.WAITING else None
    return None if key is None else find_account(c, key)


def _in_doubt(job: Record) -> list[list[UnansweredCall]]:
    """The calls about which a person's word is wanted, or would be taken, by their steps: one that waits, for one."""
    if job["state"] in ENDED:
        return by_step(job["steps"])
    waits = job["state"] == JobState.WAITING and job["wait"] == Wait.UNKNOWN
    return [calls] if waits and (calls := asked_about(job["steps"])) else []


def _resolution_form() -> tuple[bool, dict[str, Any] | None]:
    """What the form says of the call. Raises BadInput."""
    effect = {"yes": True, "no": False}.get(request.form.get("effect", ""))
    if effect is None:
        raise BadInput("look at the provider first, then say whether the call had its effect")
    text = request.form.get("result", "").strip()
    if not text or not effect:
        return effect, None
    try:
        result = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"what the step returns has to be JSON: {error}") from error
    if not isinstance(result, dict):
        raise BadInput('what the step returns has to be a JSON object, such as {"id": "…"}')
    return effect, result


def _back(id: str, done: str) -> BaseResponse:
    return redirect(url_for("console.job", id=id, done=done), 303)


def _ringing(
    desk: Desk, response: BaseResponse, rung: tuple[Bell, ...], *, revocations: tuple[str, ...] = ()
) -> BaseResponse:
    desk.bells.ring_after(response, bells=rung, revocations=revocations)
    return response
