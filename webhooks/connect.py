"""The connect flow as a browser sees it: off to the provider, and back to a page that says how it went.

The browser that opens a connect link gets a cookie of its own for that one session, and the callback is believed only
from it: whoever starts a connect cannot have somebody else finish it (RFC 9700 §4.7).
"""

from __future__ import annotations

import base64
import hashlib
import logging
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import parse_qs, urlsplit

from flask import Blueprint, Response, make_response, redirect, render_template, request

from identity.errors import BadInput, GrantRevoked, Unavailable
from webhooks import problems
from webhooks.settings import WebSettings

log = logging.getLogger(__name__)

_TEMPLATES = Path(__file__).parent / "templates"


class Connected(Protocol):
    """A completed consent."""

    @property
    def provider(self) -> str: ...

    @property
    def login(self) -> str: ...

    @property
    def principal(self) -> str: ...

    @property
    def missing_scopes(self) -> tuple[str, ...]: ...


@runtime_checkable
class ConnectRefused(Protocol):
    """A callback that connected nothing: why, and what the person can do."""

    @property
    def reason(self) -> str: ...

    @property
    def next_step(self) -> str: ...


class Connector(Protocol):
    """The connect flow's decisions. `identity.connect` implements it."""

    def authorize(self, session: str, *, browser: str, now: datetime) -> str:
        """The provider's page to send the browser to. Raises BadInput, GrantRevoked or Unavailable."""

    def finish(
        self, connection: str, params: Mapping[str, str], *, browser: str, now: datetime
    ) -> Connected | ConnectRefused:
        """What came of it. Raises BadInput, GrantRevoked or Unavailable."""


def connect_pages(settings: WebSettings, connector: Connector, *, clock: Callable[[], datetime]) -> Blueprint:
    """`GET /connect/<session>` and `GET /connect/callback/<connection>`."""
    pages = Blueprint("connect", __name__, template_folder="templates")
    style = (_TEMPLATES / "page.css").read_text(encoding="utf-8")
    policy = _policy(style)

    def page(template: str, status: int, **facts: object) -> Response:
        return make_response(render_template(template, style=style, **facts), status)

    def failed(status: int, reason: str, next_step: str) -> Response:
        return page("failed.html", status, reason=reason, next_step=next_step)

    @pages.get("/connect/<session>")
    def begin(session: str) -> Response:
        # A previewer or prefetcher is not the person: it must not become the browser this session is bound to.
        if request.method == "HEAD" or "prefetch" in request.headers.get("Sec-Purpose", ""):
            return make_response("", 204)
        browser = secrets.token_urlsafe(32)
        url = connector.authorize(session, browser=browser, now=clock())
        response = make_response(redirect(url, 303))
        state = parse_qs(urlsplit(url).query).get("state", [""])[-1]
        response.set_cookie(
            _cookie(settings, state),
            browser,
            max_age=settings.connect_lifetime,
            secure=settings.secure,
            httponly=True,
            samesite="Lax",  # the provider's redirect back is a navigation from another site
        )
        return response

    @pages.get("/connect/callback/<connection>")
    def callback(connection: str) -> Response:
        params = request.args.to_dict()
        if any(len(request.args.getlist(name)) > 1 for name in params):  # RFC 6749 §3.1
            raise BadInput("the provider's answer names a parameter twice")
        cookie = _cookie(settings, params.get("state", ""))
        outcome = connector.finish(connection, params, browser=request.cookies.get(cookie, ""), now=clock())
        if isinstance(outcome, ConnectRefused):
            log.warning("connect refused", extra={"action": "connect.refused", "connection": connection})
            response = failed(400, outcome.reason, outcome.next_step)
        else:
            log.info("account connected", extra={"action": "connect.done", "connection": connection})
            response = page("done.html", 200, connected=outcome)
        response.delete_cookie(cookie, secure=settings.secure, httponly=True, samesite="Lax")
        return response

    @pages.errorhandler(BadInput)
    def unusable(error: BadInput) -> Response:
        return failed(400, _sentence(error), "Ask for a new connect link and open it in this browser.")

    @pages.errorhandler(GrantRevoked)
    def withdrawn(error: GrantRevoked) -> Response:
        return failed(403, _sentence(error), "Ask your administrator whether you may connect again.")

    @pages.errorhandler(Unavailable)
    def later(error: Unavailable) -> Response:
        log.warning("connect not now: %s", error, extra={"action": "connect.unavailable"})
        response = failed(503, "We cannot reach what we need right now.", "Wait a minute, then open the link again.")
        response.headers["Retry-After"] = "60"
        return response

    @pages.errorhandler(Exception)
    def fault(error: Exception) -> Response:
        problems.own(error)
        return failed(500, "Something failed on our side.", "Try again later. If it stays, tell your administrator.")

    @pages.after_request
    def guard(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["Referrer-Policy"] = "no-referrer"  # the callback's address holds the code
        response.headers["X-Frame-Options"] = "DENY"
        response.headers["Cache-Control"] = "no-store"
        return response

    return pages


def _cookie(settings: WebSettings, state: str) -> str:
    """One cookie a session, so that two tabs do not disturb each other. `__Host-`: no subdomain can set it."""
    prefix = "__Host-" if settings.secure else ""
    return f"{prefix}aswhom-connect-{hashlib.sha256(state.encode()).hexdigest()[:16]}"


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")
