"""The one way to an upstream: an action's request with a token, an attempt's id and a total deadline."""

from __future__ import annotations

import json
from datetime import timedelta
from urllib.parse import urlencode

from identity.http import Answer, GuardedClient, NoAnswer, NotSent
from identity.secret import Secret
from pipeline.action import Request, Response

ATTEMPT_HEADER = "X-Aswhom-Attempt"
USER_AGENT = "aswhom/0.1"


class Upstream:
    """Sends one request and says what came back; it decides nothing."""

    def __init__(self, client: GuardedClient) -> None:
        self._client = client

    def send(
        self, request: Request, *, api_url: str, token: Secret, attempt: str, idempotency_key: str, deadline: timedelta
    ) -> Response | NotSent | NoAnswer:
        """The whole answer, or that nothing was sent, or that something was sent and no whole answer came."""
        url = api_url.rstrip("/") + request.path
        if request.params:
            url = f"{url}?{urlencode(request.params)}"
        headers = {
            "Accept": "application/json",
            "User-Agent": USER_AGENT,
            **request.headers,
            "Authorization": f"Bearer {token.reveal()}",
            ATTEMPT_HEADER: attempt,
            "Idempotency-Key": idempotency_key,
        }
        body = b""
        if request.json is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(request.json, sort_keys=True).encode()
        outcome = self._client.send(request.method, url, headers=headers, body=body, deadline=deadline)
        if isinstance(outcome, Answer):
            return Response(status=outcome.status, headers=outcome.headers, body=outcome.body)
        return outcome
