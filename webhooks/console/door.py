"""The console's door: every request comes from a signed-in person, and every form from our own page."""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256

from flask import Blueprint, Response, g, redirect, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from identity.console.sessions import Person, Session, find, note_seen
from identity.errors import BadInput, Unavailable
from identity.secret import Secret
from identity.sql.store import CommitUnknown, Store
from webhooks.client_address import client_address
from webhooks.console.access import May, NotForYou, Visitor, need_of
from webhooks.console.back_links import way_back
from webhooks.cookies import Cookie
from webhooks.pages import from_own_page
from webhooks.settings import WebSettings

log = logging.getLogger(__name__)

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_SEEN_EVERY = timedelta(minutes=5)  # at most: it is a write, after the response
FORM_FIELD = "csrf"


class NotOurs(Exception):
    """A form that was not sent from a page of this session."""


class Door:
    """The session cookie, and the session that it names."""

    def __init__(
        self,
        settings: WebSettings,
        store: Store,
        *,
        ahead: Store,
        idle: timedelta | None,
        clock: Callable[[], datetime],
    ) -> None:
        """*ahead*: the same ledger as *store*, for what a revocation begins with, which must not wait its turn."""
        self._settings = settings
        self._store = store
        self._ahead = ahead
        self._idle = idle
        self._clock = clock
        self._cookie = Cookie(settings, "console")

    def token(self) -> Secret | None:
        """Return the session token that the browser sent."""
        sent = self._cookie.sent()
        return Secret(sent) if _TOKEN.fullmatch(sent) else None

    def person(self) -> Person | None:
        """Return the person signed in at this browser."""
        session = self._session()
        return None if session is None else session.person

    def _session(self) -> Session | None:
        token = self.token()
        if token is None:
            return None
        # Any browser can send a cookie that looks like a session's.
        ledger = self._ahead if need_of(request.endpoint) is May.REVOKE else self._store
        return ledger.read(lambda c: find(c, token, now=self._clock(), idle=self._idle))

    def _see(self, token: Secret) -> None:
        """Record activity of the session's person. If the ledger cannot, the next request does."""
        with suppress(Unavailable, CommitUnknown):
            self._store.write(partial(note_seen, token=token, now=self._clock()))

    def _is_due(self, session: Session) -> bool:
        """True if activity is due to be recorded; a page that refreshes itself is no activity."""
        every = _SEEN_EVERY if self._idle is None else min(_SEEN_EVERY, self._idle / 10)
        return self._clock() - session.seen_at >= every and request.headers.get("Aswhom-Live") != "1"

    def open(self, response: BaseResponse, token: Secret, *, lasts: timedelta) -> None:
        """Give the browser its session cookie."""
        self._cookie.set(response, token.reveal(), lasts=lasts)

    def close(self, response: BaseResponse) -> None:
        self._cookie.clear(response)

    def is_ours(self) -> bool:
        """True if the browser's headers say that the form came from our own pages."""
        return from_own_page(self._settings.base_url)

    def guard(self, pages: Blueprint) -> None:
        """Admit only authorized requests to *pages*."""

        @pages.before_request
        def let_in() -> BaseResponse | None:
            token, session = self.token(), self._session()
            if token is None or session is None:
                if request.method == "GET":
                    return redirect(url_for("sign_in.page", next=_where()), 303)
                return redirect(url_for("sign_in.page", next=way_back(), over=1), 303)
            g.visitor = Visitor(person=session.person, csrf=csrf_of(token))
            g.seen = token if self._is_due(session) else None
            if request.method == "POST" and (not self.is_ours() or not _carries(g.visitor.csrf)):
                raise NotOurs
            if any("\0" in value for value in request.form.values()):
                raise BadInput("a field holds a NUL, which no text here does")
            need = need_of(request.endpoint)
            if need is None or not g.visitor.may_anywhere(need):
                raise NotForYou(f"your role may not {need or 'do this'}")
            return None

        @pages.after_request
        def note(response: Response) -> Response:
            if request.method == "POST" and (found := g.get("visitor")) is not None:
                what = {"action": "console.act", "operation": request.endpoint, "by": found.person.by}
                log.info("console answered %s", response.status_code, extra={**what, "from": client_address()})
            if (token := g.get("seen")) is not None:
                response.call_on_close(partial(self._see, token))
            return response


def from_our_form(token: Secret) -> bool:
    """True if the submitted form carries the CSRF token of that session."""
    return _carries(csrf_of(token))


def _carries(csrf: str) -> bool:
    return hmac.compare_digest(request.form.get(FORM_FIELD, "").encode(), csrf.encode())


def csrf_of(token: Secret) -> str:
    """Return the session's CSRF token. Deriving it takes the session token, which no script can read."""
    return hmac.digest(token.reveal().encode(), b"csrf", sha256).hex()


def _where() -> str:
    return request.full_path.rstrip("?")


def local_path(text: str | None) -> str:
    """Return the redirect target after sign-in: always a page of the console, whatever was requested."""
    ours = text is not None and re.fullmatch(r"/console/[\x21-\x5b\x5d-\x7e]{0,1000}", text)
    return text if ours and text else "/console/"
