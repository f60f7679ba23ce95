"""One-time confirmation of an act, shown only to the browser that acted: an address anybody can send proves nothing."""

from __future__ import annotations

import hmac
from datetime import timedelta
from hashlib import sha256
from urllib.parse import unquote, urlsplit

from flask import Blueprint, Response, g, request

from webhooks.console.access import visitor
from webhooks.cookies import Cookie
from webhooks.settings import WebSettings

_LONGEST = timedelta(minutes=1)  # from a form's response until the page it leads to
_MOST = 3  # pending confirmations, for acts in several tabs of one browser


def acts_are_told(pages: Blueprint, settings: WebSettings) -> None:
    """Make `just_acted` tell whether an act of this session led to the current page."""
    cookie = Cookie(settings, "acted")

    @pages.before_request
    def look() -> None:
        here = _proof(f"{request.path}?{request.query_string.decode()}")
        g.acted = [one for one in cookie.sent().split(".")[:_MOST] if one]
        g.just_acted = any(hmac.compare_digest(one.encode(), here.encode()) for one in g.acted)
        if g.just_acted:
            g.acted.remove(here)

    @pages.after_request
    def note(response: Response) -> Response:
        if request.method == "POST" and response.status_code == 303 and g.get("visitor") is not None:
            to = urlsplit(response.headers["Location"])
            keep(response, [_proof(f"{unquote(to.path)}?{to.query}"), *g.acted][:_MOST])
        elif just_acted():
            keep(response, g.acted)
        return response

    def keep(response: Response, proofs: list[str]) -> None:
        if proofs:
            cookie.set(response, ".".join(proofs), lasts=_LONGEST)
        else:
            cookie.clear(response)


def just_acted() -> bool:
    """True if this browser's own act led to the current page, on its first display."""
    return bool(g.get("just_acted"))


def _proof(address: str) -> str:
    """Return the proof that this session was led to *address*: an HMAC keyed with its secret CSRF token."""
    return hmac.digest(visitor().csrf.encode(), address.encode(), sha256).hex()
