"""What every page for people shares: the layout, the one style sheet, and the headers that keep a page to itself."""

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

#: Nothing inline, no script, nobody else's content; a form is sent to us alone.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: The same with our one script, which asks for the page it is on again.
SCRIPTED = f"{POLICY}; script-src 'self'; connect-src 'self'"


def pages() -> Blueprint:
    """The style sheets and the script below `/static/`, and the templates."""
    shared = Blueprint("pages", __name__, template_folder="templates")

    @shared.get("/static/<name>")
    def static(name: str) -> Response:
        if name not in _FILES:
            abort(404)
        response = make_response(_FILES[name])
        response.content_type = _TYPES[Path(name).suffix]
        # Its address names its content, so it need not be asked for again.
        kept = "public, max-age=31536000, immutable" if request.args.get("v") == _VERSIONS[name] else "no-cache"
        response.headers["Cache-Control"] = kept
        return response

    @shared.app_template_global()
    def asset(name: str) -> str:
        return url_for("pages.static", name=name, v=_VERSIONS[name])

    shared.add_app_template_filter(on_a_line)
    return shared


def page(template: str, status: int = 200, **facts: object) -> Response:
    """One page, never kept and never framed."""
    response = make_response(render_template(template, **facts), status)
    return guarded(response)


def failed(status: int, heading: str, reason: str, *onward: tuple[str, str]) -> Response:
    """The page that says that nothing came of it, and why; *onward*: addresses to go to, and what each is called."""
    return page("failed.html", status, heading=heading, reason=sentence(reason), onward=onward)


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


def is_prefetch() -> bool:
    """Whether a previewer or prefetcher asks: it is not the person, and needs no page."""
    return request.method == "HEAD" or "prefetch" in request.headers.get("Sec-Purpose", "")


def minutes(duration: timedelta) -> int:
    """How long something is still good for, in whole minutes for a person."""
    return max(1, round(duration.total_seconds() / 60))


def sentence(text: str | None) -> str:
    """A reason as a page says it. What begins with an id, `acme.ada`, keeps it as it is."""
    if not text:
        return ""
    plain = text.partition(" ")[0].strip(",:;").isalpha()
    return (text[:1].upper() if plain else text[:1]) + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")
