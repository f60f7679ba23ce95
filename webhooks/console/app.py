"""Assembly of the console: its door, its pages, and its error pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from urllib.parse import urlsplit

from flask import Blueprint, Flask, Response, g, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from identity.errors import AswhomError, BadInput
from pipeline.views import operator_queries
from webhooks.bells import Bells
from webhooks.console import access, links, lists, words
from webhooks.console.access import May, NotForYou, NotThere
from webhooks.console.accounts import account_pages
from webhooks.console.approvals import approval_pages
from webhooks.console.audit import audit_pages
from webhooks.console.back_links import way_back
from webhooks.console.connections import connection_pages
from webhooks.console.dead import dead_pages
from webhooks.console.deliveries import delivery_pages
from webhooks.console.door import Door, NotOurs
from webhooks.console.find import find_pages
from webhooks.console.flash import acts_are_told, just_acted
from webhooks.console.job_acts import job_acts
from webhooks.console.jobs import job_pages
from webhooks.console.overview import overview_pages
from webhooks.console.parts import Console, Desk
from webhooks.console.revocations import revocation_pages
from webhooks.console.revoke import revoke_pages
from webhooks.console.schedules import schedule_pages
from webhooks.console.sign_in import sign_in_pages
from webhooks.pages import SCRIPTED, failed, failures, sentence
from webhooks.pages.failures import Failure, What
from webhooks.settings import WebSettings

#: The pages in the order of the navigation, with their labels.
NAVIGATION = (
    ("overview", "Overview"),
    ("approvals", "Approvals"),
    ("jobs", "Jobs"),
    ("dead", "Dead letters"),
    ("queues", "Queues"),
    ("deliveries", "Deliveries"),
    ("accounts", "Accounts"),
    ("connections", "Connections"),
    ("revocations", "Revocations"),
    ("schedules", "Schedules"),
    ("audit", "Audit"),
)

MOST_CHOICES = 50  # tenants offered as a list; with more, the id is typed

#: The navigation entry that each detail page belongs to.
SECTIONS = {
    "approval": "approvals",
    "job": "jobs",
    "cancel_job": "jobs",
    "resolve_job": "jobs",
    "look_dead": "dead",
    "find": "overview",
    "delivery": "deliveries",
    "account": "accounts",
    "reconnect": "accounts",
    "connection": "connections",
    "revocation": "revocations",
    "stake": "revocations",
    "revoke": "revocations",
}


def install(
    app: Flask, settings: WebSettings, console: Console, bells: Bells, *, clock: Callable[[], datetime]
) -> None:
    """Serve the console from *app*, below `/console/`."""
    door = Door(settings, console.store, ahead=console.ahead, idle=console.idle, clock=clock)
    app.register_blueprint(
        sign_in_pages(
            settings, console.store, console.ids, door, console.sign_in, lifetime=console.lifetime, clock=clock
        )
    )
    pages = Blueprint("console", __name__, url_prefix="/console")
    desk = Desk.of(console, bells, clock=clock)
    door.guard(pages)
    acts_are_told(pages, settings)
    _keep_tenant(pages)
    overview_pages(pages, desk)
    find_pages(pages, desk)
    approval_pages(pages, desk)
    job_pages(pages, desk)
    job_acts(pages, desk)
    dead_pages(pages, desk)
    delivery_pages(pages, desk)
    account_pages(pages, desk)
    connection_pages(pages, desk)
    revocation_pages(pages, desk)
    revoke_pages(pages, desk)
    schedule_pages(pages, desk)
    audit_pages(pages, desk)
    _frame(pages, desk, console.label or urlsplit(settings.base_url).netloc)
    _refusals(pages)
    app.register_blueprint(pages)


def _keep_tenant(pages: Blueprint) -> None:
    """Make every link of a page keep the chosen tenant."""

    @pages.url_defaults
    def keep(_: str, values: dict[str, object]) -> None:
        if tenant := request.args.get("tenant"):
            values.setdefault("tenant", tenant)


def _frame(pages: Blueprint, desk: Desk, installation: str) -> None:
    """Provide the context of every template of the console."""

    @pages.context_processor
    def frame() -> dict[str, object]:
        now = desk.clock()
        visitor, page_name = g.get("visitor"), access.page_name()
        return {
            "now": now,
            "when": partial(words.when, now=now),
            "listed": partial(words.listed, now=now),
            "exactly": words.exactly,
            "span": words.span,
            "short": words.short,
            "sentence": sentence,
            "to": links.to,
            "linked": links.linked,
            "here": lists.here,
            "May": May,
            "visitor": visitor,
            "installation": installation,
            "live": request.headers.get("Aswhom-Live") == "1",
            "navigation": [one for one in NAVIGATION if visitor and visitor.may_anywhere(access.NEEDS[one[0]])],
            "page_name": page_name,
            "section": SECTIONS.get(page_name, page_name),
            # Called only by the frame: an error page needs no ledger, which may be what failed.
            "tenants": partial(_tenants, desk),
            "all_tenants": _all_tenants,
            "most_choices": MOST_CHOICES,
            "tenant": request.args.get("tenant", ""),
            "done": request.args.get("done", "") if just_acted() else "",
        }

    @pages.after_request
    def scripted(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = SCRIPTED
        return response


def _tenants(desk: Desk) -> Mapping[str, bool]:
    """Return the tenants that the current page can be shown for, and whether each was deleted."""
    allowed = _allowed()
    rows = desk.read(partial(operator_queries.all_tenants, among=allowed))
    deleted = {row["id"]: row["deleted_at"] is not None for row in rows}
    return deleted if allowed is None else {one: deleted.get(one, False) for one in allowed}


def _all_tenants() -> bool:
    return _allowed() is None


def _allowed() -> tuple[str, ...] | None:
    # The frame also surrounds error pages, at addresses that are no page.
    return access.visitor().tenants(access.need_of(request.endpoint) or May.SEE_WORK)


def _refusals(pages: Blueprint) -> None:
    def refuse(status: int, heading: str, reason: str) -> BaseResponse:
        back = [(form, "Back to it")] if status != 404 and (form := way_back()) else []
        return failed(status, heading, reason, *back, (url_for("sign_in.page"), "Go to the console"))

    @pages.errorhandler(NotThere)
    def not_there(_: NotThere) -> BaseResponse:
        return refuse(404, "There is no such thing", "it may have been forgotten, or be another tenant's")

    @pages.errorhandler(NotForYou)
    def not_for_you(error: NotForYou) -> BaseResponse:
        return refuse(403, "This is not for you", str(error))

    @pages.errorhandler(NotOurs)
    def not_ours(_: NotOurs) -> BaseResponse:
        return refuse(400, "Nothing was done", "the form was not sent from a page of this session: open it again")

    @pages.errorhandler(BadInput)
    def unusable(error: BadInput) -> BaseResponse:
        return refuse(422, "Nothing was done", str(error))

    @pages.errorhandler(AswhomError)
    def not_possible(error: AswhomError) -> BaseResponse:
        return refuse(409, "Nothing was done", str(error))

    def told(failure: Failure) -> BaseResponse:
        match failure.what:
            case What.LATER:
                heading, reason = "Not now", "the ledger cannot answer at the moment, and nothing was done"
            case What.UNCERTAIN:
                heading, reason = "It is not certain whether it was done", "look, before you try again"
            case What.REFUSED:
                heading, reason = "Nothing was done", failure.reason
            case What.FAULT:
                heading, reason = "A fault of ours", "it is in our log"
        return refuse(failure.status, heading, reason)

    failures.install(pages, told)
