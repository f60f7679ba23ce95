"""Sign-in and sign-out: through the OpenID provider, or by a one-time link."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flask import Blueprint, make_response, redirect, request, url_for
from sqlalchemy import Connection
from werkzeug.wrappers import Response as BaseResponse

from identity.console import sessions
from identity.console.roles import roles_of
from identity.console.sessions import Person, Via
from identity.console.sign_in import Crowded, SignIn
from identity.errors import AswhomError, PolicyDenied
from identity.ids import Ids
from identity.secret import Secret
from identity.sql.store import Store
from webhooks import problems
from webhooks.client_address import client_address
from webhooks.console.door import Door, from_our_form, local_path
from webhooks.cookies import Cookie
from webhooks.pages import failed, failures, page
from webhooks.pages.failures import Failure, What
from webhooks.settings import WebSettings

log = logging.getLogger(__name__)

_LINK = re.compile(r"[A-Za-z0-9_-]{43}")
_BEGUN = re.compile(r"([A-Za-z0-9_-]{43})\.(.*)", re.DOTALL)
_TO_THE_PROVIDER_AND_BACK = timedelta(minutes=10)


class _LinkOver(Exception):
    """The link is unknown, used or expired; raised to roll back the transaction that would use it."""


class _NoRole(Exception):
    """The person has no role; raised to roll back the transaction that would sign them in."""


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
    """Serve `/console/sign-in`, `/console/callback`, `/console/link/<token>` and `/console/sign-out`."""
    pages = Blueprint("sign_in", __name__, url_prefix="/console")
    reception = _Reception(
        store=store,
        ids=ids,
        door=door,
        lifetime=lifetime,
        clock=clock,
        begun=Cookie(settings, "sign-in"),
        wanted=Cookie(settings, "wanted"),
    )

    @pages.get("/sign-in", endpoint="page")
    def show() -> BaseResponse:
        wanted = local_path(request.args.get("next"))
        if door.person() is not None:
            return redirect(wanted, 303)
        response = page("console/sign_in.html", by_provider=provider is not None, next=wanted)
        if provider is None:
            reception.wanted.set(response, wanted, lasts=_TO_THE_PROVIDER_AND_BACK)
        return response

    _by_provider(pages, reception, provider)
    _by_link(pages, reception)
    _out(pages, reception)
    _refusals(pages, reception)
    return pages


@dataclass(frozen=True, kw_only=True)
class _Reception:
    """Common end of all sign-in paths: a session for the person, or a page that says why not."""

    store: Store
    ids: Ids
    door: Door
    lifetime: timedelta
    clock: Callable[[], datetime]
    begun: Cookie  # for a sign-in in progress at the provider: the browser's secret, and the page it wanted
    wanted: Cookie  # the page wanted by a person who signs in by a link in this browser

    def admit(self, who: Callable[[Connection], Person], to: str, *, now: datetime) -> BaseResponse:
        """Start a session for the person that *who* returns, and end the browser's previous one, in one transaction."""
        token, audit_id = Secret(secrets.token_urlsafe(32)), self.ids("aud")
        former, whose, ended_id = self.door.token(), self.door.person(), self.ids("aud")
        came_from = client_address()

        def write(c: Connection) -> None:
            person = who(c)  # roles before sessions, the same lock order as removing a role: no deadlock
            if former is not None and whose is not None:
                sessions.end(c, former, whose, audit_id=ended_id, now=now)
            sessions.begin(c, token, person, audit_id=audit_id, now=now, lifetime=self.lifetime, came_from=came_from)

        self.store.write(write)
        log.info("console sign-in", extra={"action": "console.signed_in", "from": came_from})
        response = redirect(to, 303)
        self.door.open(response, token, lasts=self.lifetime)
        return response

    def refused(self, heading: str, reason: str, status: int = 403) -> BaseResponse:
        """Render a refusal, and end the sign-in in progress."""
        response = self.told(heading, reason, status)
        self.begun.clear(response)
        return response

    def told(self, heading: str, reason: str, status: int) -> BaseResponse:
        """Render a refusal; the sign-in in progress continues."""
        what = {"action": "console.refused", "from": client_address()}
        log.warning("console sign-in refused: %s", reason, extra=what)
        return failed(status, heading, reason, (url_for("sign_in.page"), "Go to the console"))


def _by_provider(pages: Blueprint, at: _Reception, provider: SignIn | None) -> None:
    @pages.post("/sign-in")
    def go() -> BaseResponse:
        if provider is None or not at.door.is_ours():
            reason = "another site sent this browser here, or no provider is set up"
            return at.refused("This cannot be done", reason, 400)
        browser = Secret(secrets.token_urlsafe(32))
        # A page rather than a redirect: browsers apply `form-action` to a form's redirects.
        response = page("console/away.html", url=provider.begin(browser))
        kept = f"{browser.reveal()}.{local_path(request.form.get('next'))}"
        at.begun.set(response, kept, lasts=_TO_THE_PROVIDER_AND_BACK)
        log.info("console sign-in begun", extra={"action": "console.sign_in_begun", "from": client_address()})
        return response

    @pages.get("/callback")
    def callback() -> BaseResponse:
        kept = _BEGUN.fullmatch(at.begun.sent())
        if provider is None or kept is None or any(len(request.args.getlist(name)) > 1 for name in request.args):
            raise PolicyDenied("this sign-in was begun in another browser, or is over")
        claims = provider.finish(Secret(kept[1]), request.args.to_dict(), jti=at.ids("jti"), now=at.clock())
        roles_claim, name = provider.settings.roles_claim, _name(claims)

        def whose(c: Connection) -> Person:
            held = roles_of(c, claims, roles_claim=roles_claim)
            if not held:
                raise _NoRole
            issuer = provider.settings.issuer
            return Person(subject=str(claims["sub"]), name=name, via=Via.OPENID, held=held, issuer=issuer)

        try:
            response = at.admit(whose, local_path(kept[2]), now=at.clock())
        except _NoRole:
            reason = f"{name} is signed in at the provider, and no role is given to them"
            return at.refused("You have no role here", reason)
        at.begun.clear(response)
        return response


def _by_link(pages: Blueprint, at: _Reception) -> None:
    @pages.get("/link/<token>")
    def link(token: str) -> BaseResponse:
        # A previewer that only fetches the page must not use up the link: that takes a form.
        return page("console/link.html", known=_LINK.fullmatch(token) is not None, next=local_path(at.wanted.sent()))

    @pages.post("/link/<token>")
    def use(token: str) -> BaseResponse:
        if not at.door.is_ours() or not _LINK.fullmatch(token):
            return at.refused("This link is not known", "it is mistyped, or another site sent this browser here", 404)
        now = at.clock()

        def whose(c: Connection) -> Person:
            person = sessions.use_link(c, Secret(token), now=now)
            if person is None:
                raise _LinkOver
            return person

        try:
            response = at.admit(whose, local_path(at.wanted.sent()), now=now)
        except _LinkOver:
            return at.refused("This link is no longer good", "it was used, or its ten minutes are over", 410)
        at.wanted.clear(response)
        return response


def _out(pages: Blueprint, at: _Reception) -> None:
    @pages.post("/sign-out")
    def out() -> BaseResponse:
        token, person = at.door.token(), at.door.person()
        if not at.door.is_ours() or (token is not None and not from_our_form(token)):
            return at.refused("This cannot be done", "the form was not sent from a page of this session", 400)
        if token is not None and person is not None:
            audit_id, now = at.ids("aud"), at.clock()
            at.store.write(lambda c: sessions.end(c, token, person, audit_id=audit_id, now=now))
        response = make_response(redirect(url_for("sign_in.page"), 303))
        at.door.close(response)
        return response


def _refusals(pages: Blueprint, at: _Reception) -> None:
    @pages.errorhandler(PolicyDenied)
    def denied(error: PolicyDenied) -> BaseResponse:
        return at.refused("You are not signed in", str(error))

    @pages.errorhandler(Crowded)
    def crowded(error: Crowded) -> BaseResponse:
        return problems.told_to_wait(at.told("You are not signed in yet", str(error), 503), error.retry_after)

    @pages.errorhandler(AswhomError)
    def not_possible(error: AswhomError) -> BaseResponse:
        log.error("console sign-in not possible: %s", error, extra={"action": "console.sign_in_failed"})
        return at.refused("Nobody can sign in at the moment", "the reason is in our log", 500)

    def told(failure: Failure) -> BaseResponse:
        match failure.what:
            case What.LATER:
                heading, reason = "Nobody can sign in at the moment", "the reason is in our log"
            case What.UNCERTAIN:
                heading, reason = "It is not certain whether you are signed in", "open the console's first page to see"
            case What.REFUSED:  # the sign-in in progress is unaffected
                return at.told("Nothing was done", failure.reason, failure.status)
            case What.FAULT:
                heading, reason = "A fault of ours", "it is in our log"
        return at.refused(heading, reason, failure.status)

    failures.install(pages, told)


def _name(claims: Mapping[str, Any]) -> str:
    """Return a person's name for pages and the audit: a verified e-mail address, otherwise the subject.

    Claims that people may have written themselves are shown after the subject, never instead of it (OpenID Connect Core
    §5.7).
    """
    subject = str(claims["sub"])
    said = {claim: claims.get(claim) for claim in ("email", "preferred_username", "name")}
    shown = {claim: text for claim, text in said.items() if isinstance(text, str) and text.isprintable() and text}
    if "email" in shown and claims.get("email_verified") is True:
        return shown["email"][:100]
    return f"{subject} ({next(iter(shown.values()))[:100]})" if shown else subject
