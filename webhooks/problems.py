"""Problem documents (RFC 9457): what went wrong, why, and what to do next. Never a body, a signature or a secret."""

from __future__ import annotations

import json
import logging
import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import TypeVar

from flask import Flask, Response, request, url_for
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from identity.errors import AswhomError, KeysAway, Unavailable, Unconfirmed
from identity.sql.store import CommitUnknown
from pipeline.model import Unfollowed
from webhooks.pages import failed

log = logging.getLogger(__name__)

R = TypeVar("R", bound=BaseResponse)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of problem; its slug is also a metric's label, so the set is closed."""

    slug: str
    status: int
    title: str


TOO_LARGE = Kind(slug="too-large", status=413, title="The body is too large")
ENCODED = Kind(slug="encoded", status=415, title="Encoded bodies are not accepted")
CONTENT_TYPE = Kind(slug="content-type", status=415, title="This content type is not accepted")
UNKNOWN_CONNECTION = Kind(slug="unknown-connection", status=404, title="No such webhook address")
UNKNOWN_TRANSMITTER = Kind(slug="unknown-transmitter", status=404, title="No such transmitter")
SIGNATURE_REFUSED = Kind(slug="signature-refused", status=401, title="The signature was refused")
MALFORMED = Kind(slug="malformed", status=400, title="The delivery cannot be read")
INCOMPLETE = Kind(slug="incomplete", status=400, title="The body is not whole")
UNAVAILABLE = Kind(slug="unavailable", status=503, title="Not now")
FAILED = Kind(slug="failed", status=500, title="A fault of ours")
TOO_MANY = Kind(slug="too-many-requests", status=429, title="Too many requests")

# Used by the agents' API.
NO_KEY = Kind(slug="no-key", status=401, title="A key is needed")
KEY_REFUSED = Kind(slug="key-refused", status=401, title="The key lets nobody in")
STOPPED = Kind(slug="stopped", status=403, title="The agent or its tenant is stopped")
NOT_ALLOWED = Kind(slug="not-allowed", status=403, title="The key does not allow this")
NOT_THERE = Kind(slug="not-there", status=404, title="There is no such thing")
NOT_JSON = Kind(slug="not-json", status=400, title="The body cannot be read")
UNUSABLE = Kind(slug="unusable", status=422, title="The request cannot be used as it is")
PARAMETERS = Kind(slug="parameters-do-not-fit", status=422, title="The parameters do not fit the tool")
UNKNOWN_IDENTIFIER = Kind(slug="unknown-identifier", status=422, title="The identifier is nobody's here")
KEY_REUSED = Kind(slug="idempotency-key-reused", status=422, title="The idempotency key belongs to another request")
NOT_IN_STATE = Kind(slug="not-in-state", status=409, title="It is in no state for this")
CONNECT_REFUSED = Kind(slug="connect-refused", status=409, title="Nothing was connected")
NOT_SET_UP = Kind(slug="not-set-up", status=409, title="Something is not set up here")

#: Used by the receiver.
KINDS = (
    TOO_LARGE,
    ENCODED,
    CONTENT_TYPE,
    UNKNOWN_CONNECTION,
    UNKNOWN_TRANSMITTER,
    SIGNATURE_REFUSED,
    MALFORMED,
    INCOMPLETE,
    TOO_MANY,
    UNAVAILABLE,
    FAILED,
)

_NEXT_STEP = {
    400: "The request breaks the rules of HTTP. Look at how it is built, then send it again.",
    404: "Nothing is served at this path. Webhooks are received at /webhooks/<source>/<connection>; /v1/openapi.json "
    "lists what agents may ask.",
    405: "This path does not take this method; the Allow header names those it takes.",
}


#: The same for people at a browser, below the addresses of pages.
_FOR_PEOPLE = {
    404: "Nothing is at this address. Copy the whole of it, or ask for a new link.",
    405: "This address is where a form is sent to. Go back to the page that the form is on.",
}
_PAGES = ("/console", "/connect", "/approvals")

_UNCONFIRMED = (
    "The ledger did not confirm this: it may have been done, or not. Look first; or send the same request again after "
    "Retry-After, if it has an Idempotency-Key or a delivery id, by which it is done once."
)


class Problem(Exception):
    """A request that is answered with a problem document."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        retry_after: timedelta | None = None,
        errors: Sequence[Mapping[str, str]] = (),
        challenge: str = "",
    ) -> None:
        """Create the problem.

        *errors*: which part of the request is wrong and how, never with the value sent. *challenge*: the
        WWW-Authenticate value (RFC 9110 §11.6.1).
        """
        super().__init__(f"{kind.slug}: {detail}")
        self.kind = kind
        self.detail = detail
        self.retry_after = retry_after
        self.errors = errors
        self.challenge = challenge

    @classmethod
    def not_there(cls, what: str, *, listed: str) -> Problem:
        """Build the problem of an API key asking for something it cannot see; *listed*: where the visible ones are."""
        return cls(NOT_THERE, f"There is no {what} for this key. GET /v1/{listed} lists those there are.")

    @classmethod
    def not_now(cls, error: Unavailable) -> Problem:
        """Build the problem of an unavailable or unconfirming ledger, or of unreachable issuer keys."""
        if isinstance(error, Unconfirmed):
            return cls(UNAVAILABLE, _UNCONFIRMED, retry_after=error.retry_after)
        detail = "The ledger cannot take this now, and stored nothing. Send the same request again after Retry-After."
        if isinstance(error, Unfollowed):
            detail = (
                "This is stored, and holds for some of the accounts it means. The others are reached meanwhile. "
                "Send the same request again after Retry-After: it is answered when it holds for all."
            )
        if isinstance(error, KeysAway):
            detail = (
                "The keys of the token's issuer cannot be fetched, so nobody can tell whether it is good. Nothing was "
                "stored. Send the same request again after Retry-After."
            )
        return cls(UNAVAILABLE, detail, retry_after=error.retry_after)

    def document(self) -> Response:
        kind = self.kind
        answer = _document(f"urn:aswhom:problem:{kind.slug}", kind.title, kind.status, self.detail, self.errors)
        if self.challenge:
            answer.headers["WWW-Authenticate"] = self.challenge
        return answer if self.retry_after is None else told_to_wait(answer, self.retry_after)


def told_to_wait(response: R, wait: timedelta) -> R:
    """Add Retry-After to *response*: whole seconds (RFC 9110 §10.2.3), rounded up, at least 1."""
    response.headers["Retry-After"] = str(max(1, math.ceil(wait.total_seconds())))
    return response


def _document(type_: str, title: str, status: int, detail: str, errors: Sequence[Mapping[str, str]] = ()) -> Response:
    document: dict[str, object] = {"type": type_, "title": title, "status": status, "detail": detail}
    if errors:
        document["errors"] = [dict(error) for error in errors]
    return Response(json.dumps(document), status=status, content_type="application/problem+json")


def own(error: Exception) -> Problem:
    """Return the problem of an unexpected error, and log its class and traceback.

    Its message is logged only for Aswhom's own errors: a database driver's message quotes the parameters.
    """
    said = str(error) if isinstance(error, AswhomError) else type(error).__qualname__
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("request failed: %s\n%s", said, frames, extra={"action": "request.failed"})
    return Problem(FAILED, "The request failed for a reason of ours, which is in our log. Try again later.")


def _by_a_person() -> bool:
    """True if a browser asks for a page; clients that equally accept anything else are programs."""
    best = request.accept_mimetypes.best_match(("application/problem+json", "text/html"))
    return best == "text/html" and f"{request.path}/".startswith(tuple(f"{one}/" for one in _PAGES))


def install(app: Flask) -> None:
    """Answer every error of *app* with a problem document."""

    @app.errorhandler(Problem)
    def answer(problem: Problem) -> Response:
        return problem.document()

    @app.errorhandler(Unavailable)
    def later(error: Unavailable) -> Response:
        log.warning("request not taken: %s", error, extra={"action": "request.unavailable"})
        return Problem.not_now(error).document()

    @app.errorhandler(CommitUnknown)
    def unknown(_: CommitUnknown) -> Response:
        log.warning("commit not confirmed", extra={"action": "request.unconfirmed"})
        return Problem.not_now(Unconfirmed("the ledger did not confirm the commit")).document()

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> Response:
        status = error.code or 500
        title = HTTPStatus(status).phrase
        said = _NEXT_STEP.get(status, f"The request was refused: {title}.")
        document = _document("about:blank", title, status, said)
        if _by_a_person() and status in _FOR_PEOPLE:
            console = "console" in app.blueprints and request.path.startswith("/console")
            onward = [(url_for("console.overview"), "Go to the console")] if console else []
            document = failed(status, "There is no such page", _FOR_PEOPLE[status], *onward)
        for name, value in error.get_headers():
            if name.lower() in {"allow", "retry-after", "location"}:
                document.headers[name] = value
        return document

    @app.errorhandler(Exception)
    def fail(error: Exception) -> Response:
        return own(error).document()
