"""The one way to an upstream: an action's request with a token, an attempt's id and a total deadline."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from math import isfinite
from urllib.parse import urlencode

import httpx

from identity.capability.verifier import request_hash
from identity.errors import BadInput
from identity.http.client import Answer, Client, HttpRequest, NoAnswer, NotSent
from pipeline.action import Request, Response

ATTEMPT_HEADER = "X-Aswhom-Attempt"

# What stays at an address that it is joined to. RFC 3986 §5.2.4 takes segments of dots away, and %2E is a dot to most.
_BELOW = re.compile(r"(?P<path>(/(?!/)[^?#]*)?)(?P<query>\?[^#]*)?", re.DOTALL)
_DOTS = re.compile(r"(\.|%2e){1,2}", re.IGNORECASE)

# https://www.rfc-editor.org/rfc/rfc9110#section-5, as h11 has it, which writes the requests
_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"(?:[^\0\s]+(?:[ \t]+[^\0\s]+)*)?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Written:
    """A request as it goes over the wire, without what says who sends it."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def sha256(self) -> str:
        """What a capability is bound to: `identity.capability.verifier.request_hash`."""
        return request_hash(self.method, httpx.URL(self.url).raw_path.decode("ascii"), self.body)


def write(request: Request, *, api_url: str) -> Written:
    """An action's request, below *api_url*. Pure: the same request is the same bytes.

    Raises BadInput for a path that would lead elsewhere, for fields that are neither text nor a number, and for a
    method or header that no request can have.
    """
    below = _BELOW.fullmatch(request.path)
    if below is None or any(map(_DOTS.fullmatch, below["path"].split("/"))) or (below["query"] and request.params):
        # Not quoted: a link that an upstream gave may hold a secret.
        raise BadInput(
            "an action's path begins with one slash, or is empty, and has no #, no segment . or .. and no ? beside "
            "params: it is joined to the connection's API address. Quote ids with urllib.parse.quote(id, safe=''), put "
            "the query into params, and of an upstream's link to the next page take the cursor alone"
        )
    url = api_url.rstrip("/") + request.path
    if request.params:
        url = f"{url}?{_urlencoded(request.params)}"
    headers = {"Accept": "application/json", **request.headers}
    body = b""
    if request.json is not None:
        headers["Content-Type"] = "application/json"
        body = json.dumps(request.json, sort_keys=True).encode()
    elif request.form is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        body = _urlencoded(request.form).encode()
    # What the client could not send is found out here: for the client the attempt is open.
    httpx.URL(url)
    httpx.Headers(headers)
    _check(request.method, headers)
    return Written(method=request.method, url=url, headers=headers, body=body)


def _check(method: str, headers: Mapping[str, str]) -> None:
    """Raise BadInput for what no line of a request can hold. Header values are not quoted: they may be secret."""
    if not _TOKEN.fullmatch(method):
        raise BadInput(f"the method of an action's request is one word, as in GET, and not {method!r}")
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise BadInput(f"a header of an action's request is named {name!r}: a name is one word, without a colon")
        if not _VALUE.fullmatch(value):
            raise BadInput(
                f"the header {name} of an action's request has a line break, a NUL, or space around its value: strip it"
            )


def _urlencoded(fields: Mapping[str, object]) -> str:
    for name, value in fields.items():
        plain = isinstance(value, str | int) or (isinstance(value, float) and isfinite(value))
        if not plain or isinstance(value, bool):
            raise BadInput(
                f"the field {name!r} of an action's request is a {type(value).__name__}, which Python would spell its "
                "own way: write it as the upstream's text for it, or leave it out"
            )
    return urlencode(fields)


class Upstream:
    """Sends one request and says what came back; it decides nothing."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def send(
        self,
        written: Written,
        *,
        authorization: tuple[str, str],
        attempt: str,
        idempotency_key: str,
        deadline: timedelta,
        send_before: float,
        fresh: bool,
    ) -> Response | NotSent | NoAnswer:
        """The whole answer, or that nothing was sent, or that something was sent and no whole answer came.

        *authorization* is the header, name and value, that shows the token. *send_before* is a moment of the monotonic
        clock, checked last before the socket.
        """
        headers = {
            **written.headers,
            authorization[0]: authorization[1],
            ATTEMPT_HEADER: attempt,
            "Idempotency-Key": idempotency_key,
        }
        sent = HttpRequest(method=written.method, url=written.url, headers=headers, body=written.body)
        outcome = self._client.send(sent, within=deadline, send_before=send_before, fresh=fresh)
        if isinstance(outcome, Answer):
            return Response(status=outcome.status, headers=outcome.headers, body=outcome.body)
        return outcome
