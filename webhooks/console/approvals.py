"""Pages of approvals: the requests of agents, and the answer of a signed-in approver.

An answer belongs to a user of the tenant, not to an account of the console. An admin links the two, by the
subject of the person's sign-in, with `aswhom aliases add --provider console`.
"""

from __future__ import annotations

from datetime import timedelta

from flask import Blueprint, redirect, request, url_for
from sqlalchemy import Connection
from werkzeug.wrappers import Response as BaseResponse

from identity.console.sessions import Person
from identity.errors import BadInput
from identity.people import SIGNED_IN_HERE
from identity.tenants import Tenants
from pipeline.approvals.shown import letters
from pipeline.approvals.views import ApprovalView, approval, approvals_page, tenants_that_ask
from pipeline.approvals.votes import Channel, Link, NotCounted, Vote
from pipeline.ledger.paging import STRETCH, Record, Turn
from pipeline.states import ApprovalState
from pipeline.views import tenant_views
from pipeline.views.wording import started_by
from webhooks.client_address import client_address
from webhooks.console import lists
from webhooks.console.access import May, NotThere, check, listed_tenants, visitor
from webhooks.console.parts import Desk
from webhooks.cursors import cursor
from webhooks.pages import page

ME = "me"
SOON = timedelta(minutes=15)  # an open approval that expires this soon is marked


def approval_pages(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/approvals")
    def approvals() -> BaseResponse:
        tenants, states = listed_tenants(), [str(state) for state in ApprovalState]
        state = lists.chosen("state", states) or (None if "state" in request.args else ApprovalState.OPEN)
        mine, chosen = desk.read(_awaited), request.args.get("tenant")
        whose = lists.chosen("awaits", [ME]) or (None if request.args.keys() & {"awaits", "state"} else _at_first())
        of_me = bool(mine) and whose == ME and state == ApprovalState.OPEN  # a decided approval awaits nobody
        wanted = ApprovalState(state) if state else None
        if of_me and not chosen:
            tenants = visitor().sees()  # the person's user at each tenant selects the approvals
        turn, awaiting = lists.turn(), mine if of_me else ()
        found, views = desk.read(lambda c: approvals_page(c, turn, tenants=tenants, state=wanted, awaiting=awaiting))
        return page(
            "console/approvals.html",
            found=found,
            views=views,
            next=cursor(found.next),
            state=wanted,
            states=states,
            awaits=ME if of_me else None,
            everybodys=bool(mine) and whose == ME and not of_me,
            whose=[ME] if mine else [],
            soon=SOON,
        )

    @pages.get("/approvals/<id>", endpoint="approval")
    def show(id: str) -> BaseResponse:
        view = desk.read(lambda c: _found(c, id))
        job, started = desk.read(lambda c: _job_of(c, view))
        link = _link(visitor().person)
        me = None if link is None else desk.read(lambda c: link.holder(c, view.tenant))
        said = next((one for one in view.answers if one.principal == me), None)
        return page(
            "console/approval.html",
            view=view,
            parameters=letters(view.shown),
            started_by=started,
            accepted=job["created_at"],
            me=me,
            said=said,
            next=desk.read(_next) if said else None,
            awaited=me is not None and view.awaits(me),
            alias=SIGNED_IN_HERE,
            by_provider=desk.sign_in is not None,
        )

    @pages.post("/approvals/<id>/answer")
    def answer_approval(id: str) -> BaseResponse:
        view, person = desk.read(lambda c: _found(c, id)), visitor().person
        link, said = _link(person), request.form.get("answer")
        me = None if link is None else desk.read(lambda c: link.holder(c, view.tenant))
        if said not in ("yes", "no"):
            raise BadInput("say yes or no")
        if me is None:
            raise BadInput(f"who {person.name} is at tenant {view.tenant} is not known: see `aswhom aliases add`")
        given = Vote(
            approval=id,
            tenant=view.tenant,
            principal=me,
            yes=said == "yes",
            digest=request.form.get("digest", ""),
            channel=Channel.CONSOLE,
            said_as=person.by,
            link=link,
            came_from=client_address(),
        )
        counted = desk.approving.vote(given, now=desk.clock())
        if isinstance(counted, NotCounted):
            raise BadInput(f"your answer does not count: {counted.reason}")
        return redirect(url_for("console.approval", id=id), 303)


def _found(c: Connection, id: str) -> ApprovalView:
    """Return the approval if the visitor may see or answer it. Raises NotThere, NotForYou."""
    view = approval(c, id)
    if view is None:
        raise NotThere
    check(view.tenant)
    return view


def _job_of(c: Connection, view: ApprovalView) -> tuple[Record, str]:
    """Return the approval's job, and who or what started it. Raises NotThere."""
    job = tenant_views.job(c, Tenants.of(view.tenant), view.job)
    if job is None:
        raise NotThere
    return job, started_by(c, job)


def _awaited(c: Connection) -> frozenset[str]:
    """Return the visitor's users at the tenants whose approvals they may decide: the chosen tenant, or all."""
    link, chosen, deciding = _link(visitor().person), request.args.get("tenant"), visitor().tenants(May.DECIDE)
    tenants = [chosen] if chosen else tenants_that_ask(c) if deciding is None else deciding
    may = [one for one in tenants if visitor().may(May.DECIDE, one)]
    return frozenset() if link is None else link.holders(c, may)


def _next(c: Connection) -> ApprovalView | None:
    """Return the approval awaiting the visitor that expires next."""
    mine, tenants, turn = _awaited(c), visitor().sees(), Turn(limit=1, stretch=STRETCH)
    if not mine:
        return None
    _, views = approvals_page(c, turn, tenants=tenants, state=ApprovalState.OPEN, awaiting=mine)
    return views[0] if views else None


def _at_first() -> str | None:
    """Return the initial filter: their own approvals for people who only decide, everybody's for operators."""
    return None if visitor().may_anywhere(May.SEE_MORE) else ME


def _link(person: Person) -> Link | None:
    """Return the link by which a tenant may know the person. A person signed in by a link is no tenant's user."""
    return Link(provider=SIGNED_IN_HERE, user=person.known_by) if person.known_by else None
