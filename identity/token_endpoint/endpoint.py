"""Token endpoints: send one request, and pack the raw answer so that it can be sealed before it is parsed."""

from __future__ import annotations

import json
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from identity.http.client import Answer, Client, HttpRequest, NotSent, Outcome
from identity.oauth.answers import RateLimited, Transient
from identity.secret import Secret
from identity.token_endpoint.gate import Endpoint, Gate

# The headers that are read later; the rest would only enlarge the stored row.
_KEPT = ("content-type", "date", "retry-after", "x-ratelimit-remaining", "x-ratelimit-reset")


@dataclass(frozen=True, kw_only=True)
class TokenEndpoint:
    """Sends token requests, each within *budget* on a fresh connection, and tells the gate how they ended.

    The caller has entered the gate beforehand.
    """

    client: Client
    budget: timedelta
    gate: Gate
    cap: int = 256 * 1024
    monotonic: Callable[[], float] = time.monotonic

    def send(self, request: HttpRequest, *, to: Endpoint, send_before: float | None = None) -> Outcome:
        """Send one request, once. *send_before* is on the monotonic clock."""
        began = self.monotonic()
        outcome = self.client.send(request, within=self.budget, send_before=send_before, cap=self.cap, fresh=True)
        match outcome:
            case Answer(status=status) if status < 500:
                self.gate.answered(to)
            case NotSent(untried=True):
                self.gate.back(to)
            case _:
                self.gate.failed(to, took=timedelta(seconds=self.monotonic() - began))
        return outcome

    def heed(self, meaning: object, outcome: Outcome, *, to: Endpoint) -> None:
        """Leave *to* alone for as long as *outcome*, whose meaning is *meaning*, asks for.

        The pause concerns the whole client, not one grant. A rate limit always pauses; a transient failure only with a
        Retry-After header.
        """
        match meaning:
            case RateLimited(retry_after=wait):
                self.gate.pause(to, wait)
            case Transient(retry_after=wait) if isinstance(outcome, Answer) and "retry-after" in outcome.headers:
                self.gate.pause(to, wait)


def pack(answer: Answer) -> Secret:
    """Serialize an answer into one secret text."""
    document = {
        "status": answer.status,
        "headers": {name: answer.headers[name] for name in _KEPT if name in answer.headers},
        "body": b64encode(answer.body).decode(),
        "elapsed_us": answer.elapsed // timedelta(microseconds=1),
    }
    return Secret(json.dumps(document))


def unpack(packed: Secret) -> Answer:
    """Restore the answer that was packed."""
    document = json.loads(packed.reveal())
    return Answer(
        status=document["status"],
        headers=document["headers"],
        body=b64decode(document["body"]),
        elapsed=timedelta(microseconds=document["elapsed_us"]),
    )
