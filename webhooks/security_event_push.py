"""Security Event Tokens by push (RFC 8935): `POST /events/<transmitter>`, 202 once it is committed.

Whom the transmitter is, the registration says; what it says is believed by its signature alone. A token that was taken
before is answered as it was then, and a refusal says why in RFC 8935's own codes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from flask import Blueprint, Response, request
from joserfc.jwk import KeySet

from identity.errors import Unavailable
from identity.transmitters import Transmitter
from pipeline.model import Acceptance, DeliveryOutcome, SecurityEvent
from webhooks import metrics, problems
from webhooks.bells import Bells
from webhooks.problems import Problem
from webhooks.security_event import Refused, key_id, read
from webhooks.settings import WebSettings

log = logging.getLogger(__name__)

SET = "application/secevent+jwt"
_CAP = 100_000  # bytes of one token; real ones are under 4 kB


class SecurityEvents(Protocol):
    """What the web needs for security events. `pipeline.security_event_intake` implements it."""

    def transmitter(self, transmitter: str) -> Transmitter | None:
        """None: none is registered under that id."""

    def key(self, transmitter: Transmitter, kid: str) -> KeySet | None:
        """Its key of that id, alone; None: it has none. Raises Unavailable."""

    def accept(self, event: SecurityEvent, transmitter: Transmitter) -> Acceptance | None:
        """Commit the token and what follows from it. What it returns is committed; None: the transmitter was removed
        meanwhile. Raises Unavailable.
        """


def event_receiver(
    settings: WebSettings, events: SecurityEvents, bells: Bells, *, clock: Callable[[], datetime]
) -> Blueprint:
    """`POST /events/<transmitter>`."""
    pages = Blueprint("events", __name__)

    @pages.post("/events/<transmitter>")
    def receive(transmitter: str) -> Response:
        outcome: str = problems.FAILED.slug
        try:
            outcome, response = take(transmitter)
        except Refused as refused:
            outcome = str(refused.code)
            response = _refusal(refused, transmitter)
        except Problem as problem:
            outcome = problem.kind.slug
            raise
        except Unavailable:
            outcome = problems.UNAVAILABLE.slug
            raise
        finally:
            metrics.count_event(outcome)
        return response

    def take(name: str) -> tuple[str, Response]:
        sender = events.transmitter(name)
        if sender is None:
            raise _unknown()
        if request.mimetype != SET:
            raise Problem(problems.CONTENT_TYPE, f"A Security Event Token comes as {SET} (RFC 8935).")
        token = _body(min(_CAP, settings.max_body))
        kid = key_id(token)
        event = read(token, events.key(sender, kid), sender, now=clock())
        acceptance = events.accept(event, sender)
        if acceptance is None:
            raise _unknown()
        if acceptance.revocations and acceptance.outcome is DeliveryOutcome.SIGNAL:
            metrics.count_effective()
        log.info(
            "security event %s",
            acceptance.outcome,
            extra={"action": f"event.{acceptance.outcome}", "transmitter": name},
        )
        response = Response(status=202)  # RFC 8935 §2.2: an empty body
        bells.ring_after(response, revocations=acceptance.revocations)
        return acceptance.outcome, response

    return pages


def _unknown() -> Problem:
    return Problem(problems.UNKNOWN_TRANSMITTER, "There is no transmitter of this name. Compare the address.")


def _body(cap: int) -> bytes:
    request.max_content_length = cap + 1
    if (request.content_length or 0) > cap or len(body := request.get_data(cache=False)) > cap:
        raise Problem(problems.TOO_LARGE, f"A Security Event Token may have {cap} bytes.")
    return body


def _refusal(refused: Refused, transmitter: str) -> Response:
    """RFC 8935 §2.3. No token is looked at before its *transmitter* was found, so the log has no stranger's words."""
    note = {"action": "event.refused", "transmitter": transmitter, "err": str(refused.code)}
    log.warning("security event refused: %s", refused.code, extra=note)
    document = json.dumps({"err": str(refused.code), "description": refused.description})
    response = Response(document, status=400, content_type="application/json")
    response.headers["Content-Language"] = "en"
    return response
