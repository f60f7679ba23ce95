"""Browser side of the connect flow: the offer, the redirect to the provider, and the result page.

A browser gets its cookie when the person proceeds from a link's page, and the callback is accepted only from that
browser. The person who opened a link thus cannot have somebody else finish it (RFC 9700 §4.7). The reverse attack,
having a victim proceed from the attacker's link, is for the product to stop: a link that needs confirmation leads back
there with a code.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from math import ceil
from typing import Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

from flask import Blueprint, Response, make_response, redirect, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from identity.connect.reasons import AGAIN, OPERATOR, Why
from identity.errors import BadInput, GrantRevoked, KeyMissing, Misconfigured
from pipeline.accounts.connecting import Away, Done, Ended, Failed, InLine, Offer, Unconfirmed, Underway
from webhooks.cookies import Cookie
from webhooks.pages import failures, from_own_page, guarded, is_prefetch, minutes, page, sentence
from webhooks.pages.failures import Failure, What
from webhooks.settings import WebSettings

log = logging.getLogger(__name__)

_BROWSER = re.compile(r"[A-Za-z0-9_-]{43}")

#: Heading and status of each reason's page.
PAGES: Mapping[Why, tuple[str, int]] = {
    Why.UNKNOWN_LINK: ("This link is not known", 404),
    Why.EXPIRED: ("This link has expired", 410),
    Why.USED: ("This link was used already", 410),
    Why.OTHER_BROWSER: ("This link belongs to another browser", 403),
    Why.REVOKED: ("Access was withdrawn meanwhile", 403),
    Why.DECLINED: ("You said no", 200),
    Why.WRONG_ACCOUNT: ("You signed in with another account", 409),
    Why.LINKED_ELSEWHERE: ("This account is somebody else’s here", 409),
    Why.UNTRUSTED: ("This answer cannot be trusted", 400),
    Why.PROVIDER: ("The provider did not let us in", 502),
    Why.OPERATOR: ("Something is not set up here", 500),
    Why.HELD: ("Everything is held for now", 503),
    Why.INTERRUPTED: ("It was cut off", 503),
    Why.UNCONFIRMED: ("It was not confirmed", 403),
}


class Connector(Protocol):
    """The connect flow's decisions (`pipeline.accounts.connecting`). All may raise Unavailable or Misconfigured."""

    def offer(self, link: str, *, browser: str, now: datetime) -> Offer | Ended:
        """Return what the page of a link says."""

    def authorize(self, link: str, *, browser: str, now: datetime) -> Away | Ended:
        """Return the provider's page to send the browser to."""

    def finish(self, connection: str, params: Mapping[str, str], *, browser: str, now: datetime) -> Ended | InLine:
        """Process a callback and return its outcome."""

    def result(self, session: str, *, browser: str, now: datetime) -> Ended:
        """Return how a session ended, for its own browser."""


def connect_pages(settings: WebSettings, connector: Connector, *, clock: Callable[[], datetime]) -> Blueprint:
    """Serve `/connect/<link>`, `/connect/callback/<connection>` and `/connect/result/<session>`."""
    pages = Blueprint("connect", __name__, url_prefix="/connect")
    cookie = Cookie(settings, "browser")

    def browser() -> str:
        sent = cookie.sent()
        return sent if _BROWSER.fullmatch(sent) else ""

    @pages.get("/<link>")
    def begin(link: str) -> BaseResponse:
        if is_prefetch():
            return make_response("", 204)
        offer = connector.offer(link, browser=browser(), now=clock())
        if isinstance(offer, Offer):
            return page("connect/start.html", offer=offer, minutes=minutes(offer.good_for))
        return _result_page(offer)

    @pages.post("/<link>")
    def go(link: str) -> BaseResponse:
        if not from_own_page(settings.base_url):
            return _failed(_forged())
        whose = browser() or secrets.token_urlsafe(32)
        away = connector.authorize(link, browser=whose, now=clock())
        if not isinstance(away, Away):
            return _result_page(away)
        # A page rather than a redirect: browsers apply `form-action` to the whole redirect chain of a form, and a
        # provider's single sign-on may lead anywhere.
        response = page("connect/away.html", away=away)
        cookie.set(response, whose, lasts=settings.connect_lifetime)
        return response

    @pages.get("/callback/<connection>")
    def callback(connection: str) -> BaseResponse:
        params = request.args.to_dict()
        if any(len(request.args.getlist(name)) > 1 for name in params):  # RFC 6749 §3.1
            raise BadInput("the provider's answer names a parameter twice")
        ended = connector.finish(connection, params, browser=browser(), now=clock())
        if isinstance(ended, InLine):  # the browser requests this same address again by itself
            left = ended.turn_in
            return page(
                "connect/in_line.html", 202, line=ended, seconds=ceil(left.total_seconds()), minutes=minutes(left)
            )
        if isinstance(ended, Failed):
            what = {"action": "connect.refused", "connection": connection, "why": str(ended.why)}
            log.warning("connect refused", extra=what)
        elif isinstance(ended, Done):
            log.info("account connected", extra={"action": "connect.done", "connection": connection})
        elif isinstance(ended, Unconfirmed):
            log.info("consent to be confirmed", extra={"action": "connect.awaiting", "connection": connection})
            if (on := _to_confirm(ended)) is not None:
                response = redirect(on, 303)
                guarded(response)  # type: ignore[arg-type]
                return response
        return _result_page(ended)

    @pages.get("/result/<session>")
    def result(session: str) -> BaseResponse:
        ended = connector.result(session, browser=browser(), now=clock())
        match ended:
            case Done():
                return page("connect/done.html", done=ended, back=_back(ended.return_to, "connected"))
            case Underway():
                return page("connect/underway.html", 202)
            case Unconfirmed():
                back = _back(ended.return_to, str(Why.UNCONFIRMED))
                left = minutes(ended.good_for)
                return page("connect/unconfirmed.html", 202, unconfirmed=ended, back=back, minutes=left)
            case _:
                return _failed(ended)

    _refusals(pages)
    return pages


def _refusals(pages: Blueprint) -> None:
    @pages.errorhandler(BadInput)
    def unusable(error: BadInput) -> Response:
        return _failed(Failed(why=Why.UNTRUSTED, reason=str(error), next_step=AGAIN))

    @pages.errorhandler(GrantRevoked)
    def withdrawn(error: GrantRevoked) -> Response:
        return _failed(Failed(why=Why.REVOKED, reason=str(error), next_step="ask whether you may connect again"))

    @pages.errorhandler(Misconfigured)
    def not_set_up(error: Misconfigured) -> Response:
        log.error("connect not possible: %s", error, extra={"action": "connect.misconfigured"})
        return _failed(Failed(why=Why.OPERATOR, reason="a setting of this installation is wrong", next_step=OPERATOR))

    @pages.errorhandler(KeyMissing)
    def not_restarted(error: KeyMissing) -> Response:
        log.error("connect not possible: %s", error, extra={"action": "connect.misconfigured"})
        reason = "this part of the installation does not have its newest key yet"
        again = f"wait a minute, then reload this page; if it stays, {OPERATOR}"
        response = _failed(Failed(why=Why.INTERRUPTED, reason=reason, next_step=again))
        response.headers["Retry-After"] = "60"
        return response

    failures.install(pages, _told_failure)


def _told_failure(failure: Failure) -> Response:
    match failure.what:
        case What.LATER | What.UNCERTAIN:
            why, reason = Why.INTERRUPTED, "we cannot reach what we need right now"
            next_step = "wait a minute, then open the link again"
        case What.REFUSED:
            why, reason, next_step = Why.UNTRUSTED, failure.reason, AGAIN
        case What.FAULT:
            why, reason = Why.OPERATOR, "something failed on our side, and is in our log"
            next_step = f"try again later; if it stays, {OPERATOR}"
    uncertain = failure.what is not What.REFUSED
    return _failed(Failed(why=why, reason=reason, next_step=next_step), uncertain=uncertain)


def _result_page(ended: Ended) -> BaseResponse:
    """Redirect to the result page, whose address has no code; without a known browser, show the reason here."""
    if ended.session is None:
        assert isinstance(ended, Failed)  # noqa: S101 - every other outcome has a session
        return _failed(ended)
    response = redirect(url_for("connect.result", session=ended.session), 303)
    guarded(response)  # type: ignore[arg-type]
    return response


def _failed(failed: Failed, *, uncertain: bool = False) -> Response:
    heading, status = PAGES[failed.why]
    return page(
        "connect/failed.html",
        status,
        failed=failed,
        uncertain=uncertain,
        heading=heading,
        reason=sentence(failed.reason),
        next_step=sentence(failed.next_step),
        back=_back(failed.return_to, str(failed.why)),
    )


def _forged() -> Failed:
    return Failed(why=Why.UNTRUSTED, reason="another site sent this browser here", next_step="open your link yourself")


def _to_confirm(ended: Unconfirmed) -> str | None:
    """Return the product's confirmation address. None: the code was already given out, or the return target is gone."""
    if ended.code is None:
        return None
    back = _back(ended.return_to, "confirm", ("aswhom_link", ended.session), ("aswhom_code", ended.code))
    return None if back is None else back["url"]


def _back(return_to: str | None, outcome: str, *more: tuple[str, str]) -> dict[str, str] | None:
    """Return the way back to the product that made the link, with the outcome."""
    if return_to is None:
        return None
    parts = urlsplit(return_to)
    query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), ("aswhom", outcome), *more])
    return {"url": parts._replace(query=query).geturl(), "host": parts.netloc}
