"""What an act did is said once, to the browser that did it: an address alone, which anybody can send, says nothing."""

from __future__ import annotations

import hmac
from hashlib import sha256
from urllib.parse import unquote, urlsplit

from flask import Blueprint, Response, g, request

from webhooks.console.access import visitor
from webhooks.settings import WebSettings

_LONGEST = 60  # seconds, from the answer to a form until the page that it leads to


def acts_are_told(pages: Blueprint, settings: WebSettings) -> None:
    """Have `just_acted` tell whether the page at hand is where an act of this session has led."""
    cookie = "__Host-aswhom-acted" if settings.secure else "aswhom-acted"

    @pages.before_request
    def look() -> None:
        shown, here = request.cookies.get(cookie, ""), f"{request.path}?{request.query_string.decode()}"
        g.just_acted = hmac.compare_digest(shown.encode(), _proof(here).encode())

    @pages.after_request
    def note(response: Response) -> Response:
        if request.method == "POST" and response.status_code == 303 and g.get("visitor") is not None:
            to = urlsplit(response.headers["Location"])
            response.set_cookie(
                cookie,
                _proof(f"{unquote(to.path)}?{to.query}"),
                max_age=_LONGEST,
                secure=settings.secure,
                httponly=True,
                samesite="Lax",
            )
        elif just_acted():
            response.delete_cookie(cookie, secure=settings.secure, httponly=True, samesite="Lax")
        return response


def just_acted() -> bool:
    """Whether this browser's own act has led to the page at hand, for the first time."""
    return bool(g.get("just_acted"))


def _proof(address: str) -> str:
    """That this session was led there: by what its forms carry, which no other site knows."""
    return hmac.digest(visitor().csrf.encode(), address.encode(), sha256).hex()
