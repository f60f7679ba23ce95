"""Signing in and out: by the OpenID provider, or by a link that is good once."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from flask import Blueprint, make_response, redirect, request, url_for
from sqlalchemy import Connection
from werkzeug.wrappers import Response as BaseResponse

from identity.console import sessions
from identity.console.roles import roles_of
from identity.console.sessions import Person, Via
from identity.console.sign_in import SignIn
from identity.errors import AswhomError, PolicyDenied, Unavailable
from identity.ids import Ids
from identity.secret import Secret
from identity.store import CommitUnknown, Store
from webhooks.console.door import Door, from_our_form, local_path
from webhooks.console.words import sentence
from webhooks.pages import page
from webhooks.settings import WebSettings

log = logging.getLogger(__name__)

_LINK = re.compile(r"[A-Za-z0-9_-]{43}")
_BEGUN = re.compile(r"([A-Za-z0-9_-]{43})\.(.*)", re.DOTALL)
_TO_THE_PROVIDER_AND_BACK = 600  # seconds


class _LinkOver(Exception):
    """The link is not known, was used, or is over: the transaction that would use it makes nothing."""


class _NoRole(Exception):
    """Who signs in has no role: the transaction that would let them in makes nothing."""


def sign_in_pages(
    settings: WebSettings,
    store: Store,
    ids: Ids,
    door: Door,
    provider: SignIn | None,
    *,
    lifetime: timedelta,
    clock: Callable[[], datetime],
) -> Blueprint:
    """`/console/sign-in`, `/console/callback`, `/console/link/<token>`, `/console/sign-out`."""
    pages = Blueprint("sign_in", __name__, url_prefix="/console")
    begun = "__Host-aswhom-sign-in" if settings.secure else "aswhom-sign-in"
    seconds = int(lifetime.total_seconds())

    def admit(who: Callable[[Connection], Person], to: str, *, now: datetime) -> BaseResponse:
        """A session for whom *who* finds, in the transaction that makes it; the browser's former one ends with it."""
        token, audit_id = Secret(secrets.token_urlsafe(32)), ids("aud")
        former, whose, ended_id = door.token(), door.person(), ids("aud")

        def write(c: Connection) -> None:
            person = who(c)  # roles before sessions, as whoever takes a role away: no two wait for each other
            if former is not None and whose is not None:
                sessions.end(c, former, whose, audit_id=ended_id, now=now)
            sessions.begin(c, token, person, audit_id=audit_id, now=now, lifetime=lifetime)

        store.write(write)
        response = redirect(to, 303)
        door.open(response, token, seconds=seconds)
        return response

    def refused(heading: str, reason: str, status: int = 403) -> BaseResponse:
        log.warning("console sign-in refused: %s", reason, extra={"action": "console.refused"})
        response = page("console/refused.html", status, heading=heading, reason=sentence(reason))
        response.delete_cookie(begun, secure=settings.secure, httponly=True, samesite="Lax")
        return response

    @pages.get("/sign-in", endpoint="page")
    def show() -> BaseResponse:
        wanted = local_path(request.args.get("next"))
        if door.person() is not None:
            return redirect(wanted, 303)
        return page("console/sign_in.html", by_provider=provider is not None, next=wanted)

    @pages.post("/sign-in")
    def go() -> BaseResponse:
        if provider is None or not door.is_ours():
            return refused("This cannot be done", "another site sent this browser here, or no provider is set up", 400)
        browser = Secret(secrets.token_urlsafe(32))
        # A page rather than a redirect: browsers hold a form's redirects against `form-action`.
        response = page("console/away.html", url=provider.begin(browser))
        response.set_cookie(
            begun,
            f"{browser.reveal()}.{local_path(request.form.get('next'))}",
            max_age=_TO_THE_PROVIDER_AND_BACK,
            secure=settings.secure,
            httponly=True,
            samesite="Lax",
        )
        return response

    @pages.get("/callback")
    def callback() -> BaseResponse:
        kept = _BEGUN.fullmatch(request.cookies.get(begun, ""))
        if provider is None or kept is None or any(len(request.args.getlist(name)) > 1 for name in request.args):
            raise PolicyDenied("this sign-in was begun in another browser, or is over")
        claims = provider.finish(Secret(kept[1]), request.args.to_dict(), jti=ids("jti"), now=clock())
        roles_claim, name = provider.settings.roles_claim, _name(claims)

        def whose(c: Connection) -> Person:
            held = roles_of(c, claims, roles_claim=roles_claim)
            if not held:
                raise _NoRole
            return Person(subject=str(claims["sub"]), name=name, via=Via.OPENID, held=held)

        try:
            response = admit(whose, local_path(kept[2]), now=clock())
        except _NoRole:
            reason = f"{name} is signed in at the provider, and no role is given to them"
            return refused("You have no role here", reason)
        response.delete_cookie(begun, secure=settings.secure, httponly=True, samesite="Lax")
        return response

    @pages.get("/link/<token>")
    def link(token: str) -> BaseResponse:
        # Whoever only looks ahead, a previewer say, must not use it up: that takes a form.
        return page("console/link.html", known=_LINK.fullmatch(token) is not None)

    @pages.post("/link/<token>")
    def use(token: str) -> BaseResponse:
        if not door.is_ours() or not _LINK.fullmatch(token):
            return refused("This link is not known", "it is mistyped, or another site sent this browser here", 404)
        now = clock()

        def whose(c: Connection) -> Person:
            person = sessions.use_link(c, Secret(token), now=now)
            if person is None:
                raise _LinkOver
            return person

        try:
            return admit(whose, url_for("console.overview"), now=now)
        except _LinkOver:
            return refused("This link is good no more", "it was used, or its ten minutes are over", 410)

    @pages.post("/sign-out")
    def out() -> BaseResponse:
        token, person = door.token(), door.person()
        if not door.is_ours() or (token is not None and not from_our_form(token)):
            return refused("This cannot be done", "the form was not sent from a page of this session", 400)
        if token is not None and person is not None:
            audit_id, now = ids("aud"), clock()
            store.write(lambda c: sessions.end(c, token, person, audit_id=audit_id, now=now))
        response = make_response(redirect(url_for("sign_in.page"), 303))
        door.close(response)
        return response

    @pages.errorhandler(PolicyDenied)
    def denied(error: PolicyDenied) -> BaseResponse:
        return refused("You are not signed in", str(error))

    @pages.errorhandler(CommitUnknown)
    def unknown(_: CommitUnknown) -> BaseResponse:
        log.error("console sign-in not confirmed", extra={"action": "console.sign_in_failed"})
        return refused("It is not certain whether you are signed in", "open the console's first page to see", 503)

    @pages.errorhandler(AswhomError)
    def not_now(error: AswhomError) -> BaseResponse:
        status = 503 if isinstance(error, Unavailable) else 500
        log.error("console sign-in not possible: %s", error, extra={"action": "console.sign_in_failed"})
        return refused("Nobody can sign in at the moment", "the reason is in our log", status)

    return pages


def _name(claims: Mapping[str, Any]) -> str:
    """How people know them, for pages and the audit: an address that the provider has verified, else the subject.

    What they may have written themselves stands behind the subject, never for it (OpenID Connect Core §5.7).
    """
    subject = str(claims["sub"])
    said = {claim: claims.get(claim) for claim in ("email", "preferred_username", "name")}
    shown = {claim: text for claim, text in said.items() if isinstance(text, str) and text.isprintable() and text}
    if "email" in shown and claims.get("email_verified") is True:
        return shown["email"][:100]
    return f"{subject} ({next(iter(shown.values()))[:100]})" if shown else subject
