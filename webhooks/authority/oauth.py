"""OAuth message formats: client credentials, parameters that occur once, and errors per RFC 6749 §5.2."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_plus

from flask import Request, Response

from identity.secret import Secret

FORM = "application/x-www-form-urlencoded"
_CAP = 20_000  # bytes of a request; a token has about a thousand


class Code(StrEnum):
    """The error codes that can occur."""

    INVALID_REQUEST = "invalid_request"
    INVALID_CLIENT = "invalid_client"
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
    INVALID_TARGET = "invalid_target"  # RFC 8693 §2.2.2
    INVALID_DETAILS = "invalid_authorization_details"  # RFC 9396 §5
    # this and the next are RFC 6749 §4.1.2.1's; clients retry on them
    TEMPORARILY_UNAVAILABLE = "temporarily_unavailable"
    SERVER_ERROR = "server_error"


class OAuthError(Exception):
    """A refused request; *description* is for the client's developer and quotes nothing."""

    def __init__(self, code: Code, description: str, *, reason: str | None = None) -> None:
        super().__init__(f"{code}: {description}")
        self.code = code
        self.description = description
        self.reason = reason

    def document(self) -> Response:
        said = {"error": str(self.code), "error_description": self.description}
        if self.reason is not None:
            said["reason"] = self.reason
        response = answer(said, 401 if self.code is Code.INVALID_CLIENT else 400)
        if self.code is Code.INVALID_CLIENT:
            response.headers["WWW-Authenticate"] = 'Basic realm="capabilities", charset="UTF-8"'  # RFC 7617 §2
        return response


def answer(document: Mapping[str, Any], status: int = 200) -> Response:
    """Return a JSON response that must not be cached (RFC 6749 §5.1)."""
    response = Response(json.dumps(document), status=status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    response.headers["Pragma"] = "no-cache"
    return response


def in_oauths_words(problem: Response) -> Response:
    """Convert a problem document of the app (wrong method, too large, ledger unavailable) into an OAuth error.

    Its status and headers stay: `Allow`, `Retry-After`.
    """
    code = Code.INVALID_REQUEST
    if problem.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        is_away = problem.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        code = Code.TEMPORARILY_UNAVAILABLE if is_away else Code.SERVER_ERROR
    said = answer({"error": str(code), "error_description": json.loads(problem.get_data())["detail"]})
    problem.set_data(said.get_data())
    problem.headers.update(said.headers)
    return problem


def credentials(request: Request) -> tuple[str, Secret]:
    """Return the client's id and secret (RFC 6749 §2.3.1). Raises OAuthError."""
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        raise OAuthError(Code.INVALID_CLIENT, "authenticate by HTTP Basic, with the audience's id and its secret")
    try:
        sent = b64decode(encoded.strip(), validate=True).decode("ascii")
    except ValueError:  # not base64, or not ASCII inside or outside it
        sent = ""
    id, _, secret = (unquote_plus(part) for part in sent.partition(":"))
    if not secret or not id.isprintable():  # PostgreSQL stores no NUL in text
        raise OAuthError(Code.INVALID_CLIENT, "the Authorization header is no Basic id:secret")
    return id, Secret(secret)


def parameters(request: Request) -> Mapping[str, str]:
    """Return the form's parameters, each of which must occur once (RFC 6749 §3.2). Raises OAuthError."""
    if request.mimetype != FORM:
        raise OAuthError(Code.INVALID_REQUEST, f"parameters come as {FORM}")
    request.max_content_length = _CAP
    form = request.form
    if any(len(form.getlist(name)) > 1 for name in form):
        raise OAuthError(Code.INVALID_REQUEST, "a parameter comes twice; one target and one of each is what is taken")
    if any("\0" in value for value in form.values()):  # PostgreSQL stores none in text
        raise OAuthError(Code.INVALID_REQUEST, "a parameter holds a NUL")
    return {name: value for name, value in form.items() if value}


def uses_one_method(given: Mapping[str, str], client: str) -> None:
    """Raise OAuthError if a *client* known by Basic also authenticates in the form (RFC 6749 §2.3)."""
    if given.keys() & {"client_secret", "client_assertion"} or given.get("client_id", client) != client:
        raise OAuthError(Code.INVALID_REQUEST, "authenticate once, by HTTP Basic, and not in the form as well")


def needed(given: Mapping[str, str], name: str) -> str:
    """Return a required parameter. Raises OAuthError if it is missing."""
    if name not in given:
        raise OAuthError(Code.INVALID_REQUEST, f"{name} is missing")
    return given[name]
