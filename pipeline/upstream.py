"""The only sender of upstream requests: adds a token and the attempt's id, under a total deadline."""

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

# A relative reference that stays below the base address. RFC 3986 §5.2.4 removes dot segments, and most servers read
# %2E as a dot.
_BELOW = re.compile(r"(?P<path>(/(?!/)[^?#]*)?)(?P<query>\?[^#]*)?", re.DOTALL)
_DOTS = re.compile(r"(\.|%2e){1,2}", re.IGNORECASE)

# https://www.rfc-editor.org/rfc/rfc9110#section-5, as implemented by h11, which writes the requests
_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"(?:[^\0\s]+(?:[ \t]+[^\0\s]+)*)?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Written:
    """A request as sent over the wire, without the sender's credentials."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def sha256(self) -> str:
        """Return the hash that a capability is bound to: `identity.capability.verifier.request_hash`."""
        return request_hash(self.method, httpx.URL(self.url).raw_path.decode("ascii"), self.body)


def write(request: Request, *, api_url: str) -> Written:
    """Write an action's request, below *api_url*. Pure: the same request gives the same bytes.

    Raises BadInput for a path that would lead elsewhere, for fields that are neither text nor a number, and for a
    method or header that no request can have.
    """
    below = _BELOW.fullmatch(request.path)
    if below is None or any(map(_DOTS.fullmatch, below["path"].split("/"))) or (below["query"] and request.params):
        # Not quoted: a link from an upstream may contain a secret.
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
    # Find what cannot be sent now: when the client runs, the attempt is already open.
    httpx.URL(url)
    httpx.Headers(headers)
    _check(request.method, headers)
    return Written(method=request.method, url=url, headers=headers, body=body)


def _check(method: str, headers: Mapping[str, str]) -> None:
    """Raise BadInput for an invalid method or header. Header values are not quoted: they may be secret."""
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
    """Sends one request and returns the outcome; makes no decisions."""

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
        """Send the request and return the whole answer, NotSent, or NoAnswer if it was sent but no whole answer came.

        *authorization* is the header's name and value. *send_before* is a time on the monotonic clock, checked last
        before the socket.
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
