"""What every page for people shares: the layout, the one style sheet, and the headers that keep a page to itself."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from flask import Blueprint, Response, make_response, render_template, request

_HERE = Path(__file__).parent
_STYLE = (_HERE / "static" / "aswhom.css").read_bytes()
STYLE_VERSION = sha256(_STYLE).hexdigest()[:16]

#: Nothing inline, no script, nobody else's content; a form is sent to us alone.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def pages() -> Blueprint:
    """The style sheet at `/static/aswhom.css`, and the templates."""
    shared = Blueprint("pages", __name__, template_folder="templates")

    @shared.get("/static/aswhom.css")
    def style() -> Response:
        response = make_response(_STYLE)
        response.content_type = "text/css; charset=utf-8"
        # Its address names its content, so it need not be asked for again.
        kept = "public, max-age=31536000, immutable" if request.args.get("v") == STYLE_VERSION else "no-cache"
        response.headers["Cache-Control"] = kept
        return response

    @shared.app_context_processor
    def version() -> dict[str, str]:
        return {"style_version": STYLE_VERSION}

    return shared


def page(template: str, status: int = 200, **facts: object) -> Response:
    """One page, never kept and never framed."""
    response = make_response(render_template(template, **facts), status)
    return guarded(response)


def guarded(response: Response) -> Response:
    """*response* with the headers of a page."""
    response.headers["Content-Security-Policy"] = POLICY
    # A callback's address holds the code. `no-referrer` would also empty the Origin of our own forms.
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    response.headers["Cache-Control"] = "no-store"
    return response


def from_own_page(base_url: str) -> bool:
    """Whether a form was sent from a page of ours. Browsers say where from; what says nothing is no browser."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    return origin in (None, base_url.rstrip("/")) and site in (None, "same-origin")
