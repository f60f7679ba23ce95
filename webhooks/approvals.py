"""The page of an approval link: exactly what would be done, and its person's yes or no.

Where nobody signs in, the link is its person's authority: it is signed, names them, and lasts some minutes. Where
people sign in at the console it is none: it leads to the console's page of the approval, whose answer is of whoever
the sign-in names. What is answered goes back with the digest of what was shown.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from flask import Blueprint, Response, make_response, redirect, request, url_for
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from identity.errors import Unavailable
from identity.store import CommitUnknown
from pipeline.approvals.approving import NoLink, Offered
from pipeline.approvals.shown import letters
from pipeline.desk.telling import started_by
from pipeline.ledger.votes import Counted, NotCounted
from webhooks import problems
from webhooks.client_address import client_address
from webhooks.pages import from_own_page, is_prefetch, minutes, page, sentence
from webhooks.settings import WebSettings

log = logging.getLogger(__name__)


class Approver(Protocol):
    """The decisions behind the page. `pipeline.approvals.approving` implements it; both may raise Unavailable."""

    def offer(self, text: str, *, now: datetime) -> Offered | NoLink:
        """What the page of a link shows."""

    def answer(
        self, text: str, *, yes: bool, digest: str, now: datetime, came_from: str | None
    ) -> Counted | NotCounted | NoLink:
        """Count its person's answer, and keep where it came from."""


def approval_link_pages(
    settings: WebSettings, approver: Approver, *, sign_in: bool, clock: Callable[[], datetime]
) -> Blueprint:
    """`/approvals/<link>`. *sign_in*: people sign in at the console, so that a link alone answers nothing."""
    pages = Blueprint("approvals", __name__, url_prefix="/approvals")

    @pages.get("/<link>")
    def ask(link: str) -> BaseResponse:
        if is_prefetch():
            return make_response("", 204)
        offer = approver.offer(link, now=clock())
        if sign_in and isinstance(offer, Offered):
            return redirect(url_for("console.approval", id=offer.view.id), 303)
        return _told(offer)

    @pages.post("/<link>")
    def answer(link: str) -> Response:
        if sign_in:
            return _failed("This link alone answers nothing", "Open it, and answer as whom you sign in.", 403)
        said = request.form.get("answer")
        if not from_own_page(settings.base_url) or said not in ("yes", "no"):
            return _failed("This answer cannot be trusted", "Open your link yourself, and answer on its page.", 400)
        digest = request.form.get("digest", "")
        came_from = client_address()
        counted = approver.answer(link, yes=said == "yes", digest=digest, now=clock(), came_from=came_from)
        match counted:
            case NoLink():
                return _told(counted)
            case NotCounted(reason=reason):
                what = {"action": "approval.not_counted", "reason": reason, "from": came_from}
                log.warning("approval not counted", extra=what)
                return _failed("Your answer does not count", sentence(reason), 409)
            case Counted(state=state):
                what = {"action": "approval.answered", "state": str(state), "from": came_from}
                log.info("approval answered", extra=what)
                return page("approvals/done.html", said=said, state=state)

    @pages.errorhandler(CommitUnknown)
    @pages.errorhandler(Unavailable)
    def later(error: Unavailable | CommitUnknown) -> Response:
        log.warning("approval not now: %s", error, extra={"action": "approval.unavailable"})
        why = "Whether your answer was counted is not certain: open your link again in a minute to see."
        response = _failed("We cannot reach what we need right now", why, 503)
        response.headers["Retry-After"] = "60"
        return response

    @pages.errorhandler(HTTPException)
    def refused(error: HTTPException) -> Response:
        return _failed("Nothing was done", error.description or error.name, error.code or 400)

    @pages.errorhandler(Exception)
    def fault(error: Exception) -> Response:
        problems.own(error)
        return _failed(
            "A fault of ours", "It is in our log. Open your link again to see whether your answer counts.", 500
        )

    return pages


def _told(offer: Offered | NoLink) -> Response:
    if isinstance(offer, NoLink):
        if offer.expired:
            return _failed("This link has expired", "Ask for a new one: it is good for some minutes.", 410)
        return _failed("This link is not known", "Copy the whole link, or ask for a new one.", 404)
    view = offer.view
    return page(
        "approvals/ask.html",
        view=view,
        person=offer.person,
        why_not=offer.why_not,
        started_by=started_by(offer.job),
        accepted=offer.job["created_at"],
        parameters=letters(view.shown),
        minutes=minutes(offer.good_for),
    )


def _failed(heading: str, reason: str, status: int) -> Response:
    return page("approvals/failed.html", status, heading=heading, reason=reason)
