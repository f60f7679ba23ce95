"""Dead letters grouped by cause, and the replay of one group."""

from __future__ import annotations

from collections import Counter

from flask import Blueprint, redirect, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from identity.errors import BadInput, Unavailable
from pipeline.desk import jobs as acts
from pipeline.views.dead_letters import dead_letters, jobs_of, still_dead
from webhooks.console.access import May, check, seen_tenant, visitor
from webhooks.console.flash import just_acted
from webhooks.console.parts import Desk
from webhooks.pages import page

AT_ONCE = 200  # jobs that one click replays: a single transaction, and the person waits for it


def dead_pages(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/dead")
    def dead() -> BaseResponse:
        tenant = seen_tenant()
        found = desk.read(lambda c: dead_letters(c, tenant))
        return page(
            "console/dead.html",
            found=found,
            tenant=tenant or "",  # the tenant whose jobs are shown, whether or not the address names it
            may_replay=visitor().may(May.WORK, tenant),
            at_once=AT_ONCE,
            replayed=_number("replayed"),
            left=_number("left"),
        )

    @pages.get("/dead/replay", endpoint="look_dead")
    def look() -> BaseResponse:
        tenant = seen_tenant()
        check(tenant)
        workflow, cause = request.args.get("workflow", ""), request.args.get("cause", "")
        found = desk.read(lambda c: dead_letters(c, tenant))
        group = next((one for one in found.groups if (one.workflow, one.cause) == (workflow, cause)), None)
        if group is None:  # somebody has replayed them, or they were pruned
            return redirect(url_for("console.dead", tenant=tenant), 303)
        rows = desk.read(lambda c: jobs_of(c, group.jobs[-AT_ONCE:]))
        return page(
            "console/replay_dead.html",
            tenant=tenant or "",
            group=group,
            rows=rows,
            tenants=Counter(row["tenant_id"] for row in rows).most_common(),
        )

    @pages.post("/dead/replay")
    def replay_dead() -> BaseResponse:
        tenant = seen_tenant()
        check(tenant)
        workflow, cause = request.form.get("workflow", ""), request.form.get("cause", "")
        # Replay only the jobs that the button counted: those a second click would find were not meant.
        shown = request.form.get("jobs", "").split()[:AT_ONCE]
        oldest_first = desk.read(lambda c: still_dead(c, shown, tenant, workflow=workflow, why=cause))
        if not oldest_first:
            raise BadInput("none of the jobs that you were shown is dead of that any more: look at the list again")
        act, subject = desk.act(), visitor().person.known_by
        done = desk.write(lambda c: acts.replay_all(c, oldest_first, act, workflows=desk.workflows, subject=subject))
        left = _left(desk, tenant, workflow, cause)
        response = redirect(url_for("console.dead", tenant=tenant, replayed=len(done.jobs), left=left), 303)
        desk.bells.ring_after(response, bells=done.bells)
        return response


def _left(desk: Desk, tenant: str | None, workflow: str, cause: str) -> int | None:
    """Return how many of the group are still dead; None: the replay succeeded, but the ledger is now away."""
    try:
        found = desk.read(lambda c: dead_letters(c, tenant))
    except Unavailable:
        return None
    return sum(len(one.jobs) for one in found.groups if (one.workflow, one.cause) == (workflow, cause))


def _number(name: str) -> int | None:
    said = request.args.get(name, "") if just_acted() else ""
    return int(said) if said.isdecimal() and len(said) < 9 else None
