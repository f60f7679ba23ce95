"""Shared parts of the pages for people: layout, style sheets, and security headers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

from flask import Blueprint, Response, abort, make_response, render_template, request, url_for

from pipeline.approvals.shown import on_a_line

_HERE = Path(__file__).parent
_TYPES: Mapping[str, str] = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
_FILES: Mapping[str, bytes] = {path.name: path.read_bytes() for path in sorted((_HERE / "static").iterdir())}
_VERSIONS: Mapping[str, str] = {name: sha256(content).hexdigest()[:16] for name, content in _FILES.items()}

#: No inline code, no script, no third-party content; forms are sent only to us.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: The same with our one script, which reloads the current page.
SCRIPTED = f"{POLICY}; script-src 'self'; connect-src 'self'"


def pages() -> Blueprint:
    """Serve the style sheets and the script below `/static/`, and provide the templates."""
    shared = Blueprint("pages", __name__, template_folder="templates")

    @shared.get("/static/<name>")
    def static(name: str) -> Response:
        if name not in _FILES:
            abort(404)
        response = make_response(_FILES[name])
        response.content_type = _TYPES[Path(name).suffix]
        # Its address contains a digest of its content, so it never needs revalidation.
        kept = "public, max-age=31536000, immutable" if request.args.get("v") == _VERSIONS[name] else "no-cache"
        response.headers["Cache-Control"] = kept
        return response

    @shared.app_template_global()
    def asset(name: str) -> str:
        return url_for("pages.static", name=name, v=_VERSIONS[name])

    shared.add_app_template_filter(on_a_line)
    return shared


def page(template: str, status: int = 200, **facts: object) -> Response:
    """Render one page, never cached and never framed."""
    response = make_response(render_template(template, **facts), status)
    return guarded(response)


def failed(status: int, heading: str, reason: str, *onward: tuple[str, str]) -> Response:
    """Render the page that says that nothing was done, and why; *onward*: addresses to go to, with their labels."""
    return page("failed.html", status, heading=heading, reason=sentence(reason), onward=onward)


def guarded(response: Response) -> Response:
    """Add a page's security headers to *response*."""
    response.headers["Content-Security-Policy"] = POLICY
    # A callback's address holds the code. `no-referrer` would also empty the Origin header of our own forms.
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    response.headers["Cache-Control"] = "no-store"
    return response


def from_own_page(base_url: str) -> bool:
    """True if a form came from our own page. Browsers send these headers; a client that sends neither is no browser."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    return origin in (None, base_url.rstrip("/")) and site in (None, "same-origin")


def is_prefetch() -> bool:
    """True if a previewer or prefetcher asks: it is not the person, and needs no page."""
    return request.method == "HEAD" or "prefetch" in request.headers.get("Sec-Purpose", "")


def minutes(duration: timedelta) -> int:
    """Return how long something is still valid, in whole minutes for a person."""
    return max(1, round(duration.total_seconds() / 60))


def sentence(text: str | None) -> str:
    """Turn a reason into a sentence for a page. A leading id, such as `acme.ada`, is not capitalized."""
    if not text:
        return ""
    plain = text.partition(" ")[0].strip(",:;").isalpha()
    return (text[:1].upper() if plain else text[:1]) + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")
