"""Push delivery of Security Event Tokens (RFC 8935): `POST /events/<transmitter>`, 202 after the commit.

The registration says who the transmitter is; only its signature proves what it says. A token received before is
answered as before, and a refusal carries RFC 8935's own error codes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from flask import Blueprint, Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from identity.errors import Unavailable
from identity.oauth.jose import Key, Signed
from identity.transmitters import Transmitter
from pipeline.model import Acceptance, DeliveryOutcome, SecurityEvent
from pipeline.signal import Nobody
from webhooks import metrics, problems
from webhooks.bells import Bells
from webhooks.problems import Problem
from webhooks.security_event import Code, Refused, Unproven, read, unverified
from webhooks.settings import WebSettings

log = logging.getLogger(__name__)

SET = "application/secevent+jwt"
_CAP = 100_000  # bytes of one token; real ones are under 4 kB


class SecurityEvents(Protocol):
    """The web's interface for security events. Implemented by `pipeline.deliveries.security_event_intake`."""

    def transmitter(self, transmitter: str) -> Transmitter | None:
        """Return the transmitter. None: none is registered under that id."""

    def key(self, transmitter: Transmitter, token: Signed) -> Key | None:
        """Return the transmitter's key that *token* names; None: it has none. Raises Unavailable."""

    def accept(self, event: SecurityEvent, transmitter: Transmitter) -> Acceptance | None:
        """Commit the token and what follows from it. The returned value is committed.

        None: the transmitter was removed meanwhile. Raises Unavailable.
        """


def event_receiver(
    settings: WebSettings, events: SecurityEvents, bells: Bells, *, clock: Callable[[], datetime]
) -> Blueprint:
    """Serve `POST /events/<transmitter>`."""
    pages = Blueprint("events", __name__)

    @pages.post("/events/<transmitter>")
    def receive(transmitter: str) -> Response:
        outcome: str = problems.FAILED.slug
        known = ""  # never use a stranger's text as a label
        try:
            sender = events.transmitter(transmitter)
            if sender is None:
                raise _unknown()
            known = sender.id
            outcome, response = take(sender)
        except Refused as refused:
            outcome = str(refused.unproven or refused.code)
            response = _refusal(refused, transmitter)
        except Problem as problem:
            outcome = problem.kind.slug
            raise
        except Unavailable:
            outcome = problems.UNAVAILABLE.slug
            raise
        finally:
            metrics.count_event(outcome, known)
        return response

    def take(sender: Transmitter) -> tuple[str, Response]:
        if request.mimetype != SET:
            said = f"a Security Event Token comes with the content type {SET}"
            raise Refused(Code.INVALID_REQUEST, said, unproven=Unproven.UNSIGNED)
        signed = unverified(_body(min(_CAP, settings.max_body)), sender)
        event = read(signed, events.key(sender, signed), sender, now=clock())
        acceptance = events.accept(event, sender)
        if acceptance is None:
            raise _unknown()
        if acceptance.revocations and acceptance.outcome is DeliveryOutcome.SIGNAL:
            metrics.count_effective()
        outcome = _became(event, acceptance)
        log.log(
            logging.WARNING if outcome == metrics.NOBODY else logging.INFO,
            "security event %s",
            outcome,
            extra={"action": f"event.{outcome}", "transmitter": sender.id},
        )
        response = Response(status=202)  # RFC 8935 §2.2: an empty body
        bells.ring_after(response, revocations=acceptance.revocations)
        return outcome, response

    return pages


def _became(event: SecurityEvent, acceptance: Acceptance) -> str:
    """Return the outcome to count; a signal that matches nobody gets its own, despite the 202."""
    whom = [one for signal in event.signals for one in signal.whom]
    if acceptance.outcome is DeliveryOutcome.SIGNAL and all(isinstance(one, Nobody) for one in whom):
        return metrics.NOBODY
    return acceptance.outcome


def _unknown() -> Problem:
    return Problem(problems.UNKNOWN_TRANSMITTER, "There is no transmitter of this name. Compare the address.")


def _body(cap: int) -> bytes:
    request.max_content_length = cap + 1
    said = f"a Security Event Token may have {cap} bytes"
    too_large = Refused(Code.INVALID_REQUEST, said, unproven=Unproven.UNSIGNED)
    if (request.content_length or 0) > cap:
        raise too_large
    try:
        body = request.get_data(cache=False)
    except RequestEntityTooLarge:  # a body without Content-Length
        raise too_large from None
    if len(body) > cap:
        raise too_large
    return body


def _refusal(refused: Refused, transmitter: str) -> Response:
    """Build the error response of RFC 8935 §2.3. *transmitter* is known by now, so the log has no stranger's words."""
    note = {"action": "event.refused", "transmitter": transmitter, "err": str(refused.code)}
    if refused.unproven is not None:
        note["unproven"] = str(refused.unproven)
    log.warning("security event refused: %s", refused.code, extra=note)
    document = json.dumps({"err": str(refused.code), "description": refused.description})
    response = Response(document, status=400, content_type="application/json")
    response.headers["Content-Language"] = "en"
    return response
