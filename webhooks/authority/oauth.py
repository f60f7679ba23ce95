"""OAuth's own forms: a client's credentials, parameters that come once, and errors as RFC 6749 §5.2 has them."""

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
    """The error codes there is an occasion for."""

    INVALID_REQUEST = "invalid_request"
    INVALID_CLIENT = "invalid_client"
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
    INVALID_TARGET = "invalid_target"  # RFC 8693 §2.2.2
    INVALID_DETAILS = "invalid_authorization_details"  # RFC 9396 §5
    TEMPORARILY_UNAVAILABLE = "temporarily_unavailable"  # this and the next are §4.1.2.1's, with which clients go on
    SERVER_ERROR = "server_error"


class OAuthError(Exception):
    """A request that is refused; *description* is for the client's developer and quotes nothing."""

    def __init__(self, code: Code, description: str, *, reason: str | None = None) -> None:
        super().__init__(f"{code}: {description}")
        self.code = code
        self.description = description
        self.reason = reason

    def document(self) -> Response:
        """The answer."""
        said = {"error": str(self.code), "error_description": self.description}
        if self.reason is not None:
            said["reason"] = self.reason
        response = answer(said, 401 if self.code is Code.INVALID_CLIENT else 400)
        if self.code is Code.INVALID_CLIENT:
            response.headers["WWW-Authenticate"] = 'Basic realm="capabilities", charset="UTF-8"'  # RFC 7617 §2
        return response


def answer(document: Mapping[str, Any], status: int = 200) -> Response:
    """A JSON document that nobody keeps (RFC 6749 §5.1)."""
    response = Response(json.dumps(document), status=status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    response.headers["Pragma"] = "no-cache"
    return response


def in_oauths_words(problem: Response) -> Response:
    """A problem document of the app's (another method, too large, a ledger that is away), as clients of OAuth read it.

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
    """The client's id and secret (RFC 6749 §2.3.1). Raises OAuthError."""
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        raise OAuthError(Code.INVALID_CLIENT, "authenticate by HTTP Basic, with the audience's id and its secret")
    try:
        sent = b64decode(encoded.strip(), validate=True).decode("ascii")
    except ValueError:  # no base64, or no ASCII in it or around it
        sent = ""
    id, _, secret = (unquote_plus(part) for part in sent.partition(":"))
    if not secret or not id.isprintable():  # PostgreSQL takes no NUL in a text
        raise OAuthError(Code.INVALID_CLIENT, "the Authorization header is no Basic id:secret")
    return id, Secret(secret)


def parameters(request: Request) -> Mapping[str, str]:
    """The form's parameters, each of which comes once (RFC 6749 §3.2). Raises OAuthError."""
    if request.mimetype != FORM:
        raise OAuthError(Code.INVALID_REQUEST, f"parameters come as {FORM}")
    request.max_content_length = _CAP
    form = request.form
    if any(len(form.getlist(name)) > 1 for name in form):
        raise OAuthError(Code.INVALID_REQUEST, "a parameter comes twice; one target and one of each is what is taken")
    if any("\0" in value for value in form.values()):  # PostgreSQL takes none in a text
        raise OAuthError(Code.INVALID_REQUEST, "a parameter holds a NUL")
    return {name: value for name, value in form.items() if value}


def uses_one_method(given: Mapping[str, str], client: str) -> None:
    """Raise OAuthError for a *client* that is known by Basic and authenticates in the form too (RFC 6749 §2.3)."""
    if given.keys() & {"client_secret", "client_assertion"} or given.get("client_id", client) != client:
        raise OAuthError(Code.INVALID_REQUEST, "authenticate once, by HTTP Basic, and not in the form as well")


def needed(given: Mapping[str, str], name: str) -> str:
    """A parameter that must be there. Raises OAuthError."""
    if name not in given:
        raise OAuthError(Code.INVALID_REQUEST, f"{name} is missing")
    return given[name]
