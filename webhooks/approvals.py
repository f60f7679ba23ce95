"""The page of an approval link: shows exactly what would be done and takes the person's yes or no.

Without console sign-in, the link itself is the person's authority: it is signed, names them, and lasts some minutes.
With sign-in, the link carries no authority: it leads to the console's approval page, and the answer belongs to the
person who signed in. An answer is submitted with the digest of what was shown.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from flask import Blueprint, Response, make_response, redirect, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from pipeline.approvals.approving import NoLink, Offered
from pipeline.approvals.shown import letters
from pipeline.approvals.votes import Counted, NotCounted
from webhooks.client_address import client_address
from webhooks.pages import failed, failures, from_own_page, is_prefetch, minutes, page
from webhooks.pages.failures import Failure, What
from webhooks.settings import WebSettings

log = logging.getLogger(__name__)


class Approver(Protocol):
    """Decides behind the page. Implemented by `pipeline.approvals.approving`; both methods may raise Unavailable."""

    def offer(self, text: str, *, now: datetime) -> Offered | NoLink:
        """Return what the page of a link shows."""

    def answer(
        self, text: str, *, yes: bool, digest: str, now: datetime, came_from: str | None
    ) -> Counted | NotCounted | NoLink:
        """Count the person's answer, and record where it came from."""


def approval_link_pages(
    settings: WebSettings, approver: Approver, *, sign_in: bool, clock: Callable[[], datetime]
) -> Blueprint:
    """Serve `/approvals/<link>`. *sign_in*: people sign in at the console, so a link by itself answers nothing."""
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
            return failed(403, "This link alone answers nothing", "Open it, and answer as whom you sign in.")
        said = request.form.get("answer")
        if not from_own_page(settings.base_url) or said not in ("yes", "no"):
            return failed(400, "This answer cannot be trusted", "Open your link yourself, and answer on its page.")
        digest = request.form.get("digest", "")
        came_from = client_address()
        counted = approver.answer(link, yes=said == "yes", digest=digest, now=clock(), came_from=came_from)
        match counted:
            case NoLink():
                return _told(counted)
            case NotCounted(reason=reason):
                what = {"action": "approval.not_counted", "reason": reason, "from": came_from}
                log.warning("approval not counted", extra=what)
                return failed(409, "Your answer does not count", reason)
            case Counted(state=state):
                what = {"action": "approval.answered", "state": str(state), "from": came_from}
                log.info("approval answered", extra=what)
                return page("approvals/done.html", said=said, state=state)

    failures.install(pages, _told_failure)
    return pages


def _told_failure(failure: Failure) -> Response:
    match failure.what:
        case What.LATER | What.UNCERTAIN:
            heading = "We cannot reach what we need right now"
            reason = "Whether your answer was counted is not certain: open your link again in a minute to see."
        case What.REFUSED:
            heading, reason = "Nothing was done", failure.reason
        case What.FAULT:
            heading = "A fault of ours"
            reason = "It is in our log. Open your link again to see whether your answer counts."
    return failed(failure.status, heading, reason)


def _told(offer: Offered | NoLink) -> Response:
    if isinstance(offer, NoLink):
        if offer.expired:
            return failed(410, "This link has expired", "Ask for a new one: it is good for some minutes.")
        return failed(404, "This link is not known", "Copy the whole link, or ask for a new one.")
    view = offer.view
    return page(
        "approvals/ask.html",
        view=view,
        person=offer.person,
        why_not=offer.why_not,
        started_by=offer.started_by,
        accepted=offer.accepted,
        parameters=letters(view.shown),
        minutes=minutes(offer.good_for),
    )
