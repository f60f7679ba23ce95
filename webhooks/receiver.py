"""The receiver: verify, count, accept in one transaction, answer, then ring.

A delivery whose signature is not verified leaves only a count. A verified one is recorded before it is answered with
202, even if no workflow wants it. The exception is an installation that no tenant has: over the rate limit its
deliveries are dropped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from flask import Blueprint, Response, g, jsonify, request
from werkzeug.exceptions import ClientDisconnected

from identity.errors import Unavailable
from pipeline.authoring.matching import Considered
from pipeline.authoring.registry import Registry
from pipeline.model import Acceptance, DeliveryOutcome, SignedDelivery, Unfollowed
from webhooks import metrics, problems
from webhooks.arrival import arrived
from webhooks.bells import Bells
from webhooks.ledger import ConnectionSecrets, Ledger
from webhooks.lingering import read_on_after
from webhooks.once_a_minute import OnceAMinute
from webhooks.problems import Problem
from webhooks.quota import Rates
from webhooks.replies import Replies
from webhooks.settings import WebSettings
from webhooks.sources import SOURCES
from webhooks.sources.reading import Challenge, Fault, Received, Refusal, Source

log = logging.getLogger(__name__)

_LEVELS = {DeliveryOutcome.UNRECOGNISED: logging.ERROR, metrics.NOBODY: logging.WARNING}
_FAULTS = {
    Fault.SIGNATURE: problems.SIGNATURE_REFUSED,
    Fault.STALE: problems.SIGNATURE_REFUSED,
    Fault.MALFORMED: problems.MALFORMED,
}


def receiver(
    settings: WebSettings,
    ledger: Ledger,
    workflows: Registry,
    bells: Bells,
    rates: Rates,
    *,
    replies: Replies | None,
    clock: Callable[[], datetime],
) -> Blueprint:
    """Serve `POST /webhooks/<source>/<connection>`."""
    pages = Blueprint("receiver", __name__)
    for workflow in workflows:  # start at 0: Prometheus sees no increase when a series first appears at 1
        metrics.MISREAD.labels(workflow=workflow.name)
    taker = _Receiver(
        settings=settings,
        ledger=ledger,
        workflows=workflows,
        bells=bells,
        rates=rates,
        replies=replies,
        clock=clock,
    )

    @pages.post("/webhooks/<source>/<connection>")
    def receive(source: str, connection: str) -> Response:
        outcome: str = problems.FAILED.slug
        try:
            outcome, response = taker.take(source, connection)
        except Problem as problem:
            outcome = problem.kind.slug
            raise
        except Unavailable:
            outcome = problems.UNAVAILABLE.slug
            raise
        finally:
            metrics.count(source, outcome)
        return response

    @pages.after_request
    def read_on(response: Response) -> Response:
        if response.status_code >= 400 and not g.get("body_was_read", False):
            read_on_after(response)
        return response

    return pages


@dataclass(frozen=True, kw_only=True)
class _Receiver:
    """Handles one delivery, from the request's headers to the bells and replies that follow the response."""

    settings: WebSettings
    ledger: Ledger
    workflows: Registry
    bells: Bells
    rates: Rates
    replies: Replies | None
    clock: Callable[[], datetime]
    told: OnceAMinute = field(default_factory=OnceAMinute)

    def take(self, name: str, connection: str) -> tuple[str, Response]:
        """Return the outcome, as the metrics name it, and the response. Raises Problem or Unavailable."""
        began = arrived()
        source = _admit(name, self.settings)
        secrets = _secrets(self.ledger, source, connection)
        source = source.of(secrets.config)
        body = _body(self.settings)
        if not source.a_person_waits:  # a large body over a slow line may take its time: start counting after it
            began = time.monotonic()
        headers = {key.lower(): value for key, value in request.headers.items()}
        reading = source.read(headers, body, secrets.webhook_secrets, self.clock())
        match reading:
            case Refusal(fault=fault, detail=detail):
                note = {"action": "delivery.refused", "source": name, "connection": connection, "fault": fault.value}
                log.warning("delivery refused", extra=note)
                raise Problem(_FAULTS[fault], detail)
            case Challenge(answer=answer):
                return metrics.CHALLENGE, jsonify(challenge=answer) if answer is not None else Response()
            case Received():
                if reading.signal is None and not self._admits(connection, secrets, reading):
                    return self._drop(source, connection, body, reading)
                return self._accept(source, connection, body, reading, api_url=secrets.api_url, began=began)

    def _admits(self, connection: str, secrets: ConnectionSecrets, received: Received) -> bool:
        """Count a delivery; return False if it is not to be stored. Raises Problem over a limit.

        A delivery through a tenant's own connection counts against that tenant even if it will be refused or ignored:
        it is stored all the same, for operators to inspect and replay.
        """
        whose = self.ledger.rated_tenant(connection, received.installation, received.workspace, owner=secrets.tenant)
        return self.rates.admit(connection, whose)

    def _drop(self, source: Source, connection: str, body: bytes, received: Received) -> tuple[str, Response]:
        """Answer a delivery of an installation that no tenant has as if it had been stored."""
        if self.told.is_due((connection, received.installation)):
            where = {"source": source.name, "connection": connection, "installation": received.installation}
            log.warning("deliveries of no tenant's are dropped", extra={"action": "delivery.dropped", **where})
        why = "no tenant has the installation that it names, and no more of those are stored in this minute"
        nothing = Acceptance(delivery="", outcome=DeliveryOutcome.IGNORED, reason=why, nobodys=True)
        delivery = received.signed(source=source.name, connection=connection, body=body)
        return metrics.DROPPED, self._answer(
            received, delivery, nothing, {"outcome": metrics.DROPPED, "reason": nothing.reason}
        )

    def _accept(
        self, source: Source, connection: str, body: bytes, received: Received, *, api_url: str, began: float
    ) -> tuple[str, Response]:
        delivery = received.signed(source=source.name, connection=connection, body=body)
        considered, idle, why = _considered(self.workflows, delivery.source, received)
        matches = [one.match for one in considered if one.match is not None]
        misfits = [one for one in considered if one.misfit]
        try:
            acceptance = self.ledger.accept(delivery, matches, outcome=idle, reason=why, misfits=misfits, began=began)
        except Unfollowed as short:
            response = Problem.not_now(short).document()
            self.bells.ring_after(response, revocations=short.revocations)  # although the sender will send it again
            return problems.UNAVAILABLE.slug, response
        outcome: str = acceptance.outcome
        if outcome == DeliveryOutcome.SIGNAL and acceptance.nobodys:
            outcome = metrics.STRANGER if acceptance.strangers else metrics.NOBODY
        if acceptance.revocations and acceptance.outcome is DeliveryOutcome.SIGNAL:
            metrics.count_effective()
        note = {"action": f"delivery.{outcome}", "source": source.name, "connection": connection}
        level = _LEVELS.get(outcome, logging.INFO)
        log.log(level, "delivery %s", outcome, extra={**note, "delivery": acceptance.delivery, "jobs": acceptance.jobs})
        for workflow, misfit in acceptance.misread.items():
            metrics.MISREAD.labels(workflow=workflow).inc()
            what = {"action": "trigger.misread", "workflow": workflow, "delivery": acceptance.delivery}
            log.error("a workflow could not read a delivery: %s", misfit, extra=what)
        if received.withheld and outcome != DeliveryOutcome.DUPLICATE:
            metrics.WITHHELD.labels(source=source.name).inc()
            where = {"action": "delivery.withheld", "connection": connection, "installation": received.installation}
            log.warning("the sender left out events", extra={**where, "delivery": acceptance.delivery})
        response = self._answer(received, delivery, acceptance, _told(acceptance))
        self.bells.ring_after(response, bells=acceptance.bells, revocations=acceptance.revocations)
        # After the bells: these callbacks run in order after the response, and a chat may take ten seconds.
        telling = received.telling
        if telling and telling.at and self.replies and (words := telling.says(acceptance, ())):
            self.replies.send_after(response, telling.at, words, api_url=api_url)
        return outcome, response

    def _answer(
        self, received: Received, delivery: SignedDelivery, acceptance: Acceptance, document: Mapping[str, object]
    ) -> Response:
        """Build the response to the sender: *document* for a machine, or words for a person."""
        # The sender shows a person the body of our response, and takes any status other than 200 for a failure.
        if received.answered_with_nothing:
            return Response()
        if received.telling is not None and received.telling.at is None:
            acceptance = replace(acceptance, held=bool(acceptance.jobs) and self._held())
            return jsonify(received.telling.says(acceptance, self._usages(delivery, acceptance)))
        response = jsonify(document)
        response.status_code = 202
        return response

    def _held(self) -> bool:
        try:
            return self.ledger.held()
        except Unavailable:  # the delivery is committed, so it must be answered
            return False

    def _usages(self, delivery: SignedDelivery, acceptance: Acceptance) -> Sequence[str]:
        """Return what the person could type instead to start one of the workflows that are on for their tenant."""
        if acceptance.nobodys or acceptance.jobs or acceptance.outcome is not DeliveryOutcome.IGNORED:
            return ()
        try:
            return self.ledger.usages(delivery, self.workflows)
        except Unavailable:  # the delivery is committed, so it must be answered
            return ()


def _admit(name: str, settings: WebSettings) -> Source:
    """Return the source of that name if the request's headers fit it. Raises Problem."""
    if (request.content_length or 0) > settings.max_body:
        raise _too_large(settings)
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        detail = "A body is verified as it was signed, so it is taken only as it is. Send it without Content-Encoding."
        raise Problem(problems.ENCODED, detail)
    source = SOURCES.get(name)
    if source is None:
        raise _unknown()
    if request.mimetype not in source.content_types:
        detail = f"{source.name} sends {' or '.join(sorted(source.content_types))}. Set the webhook's content type."
        raise Problem(problems.CONTENT_TYPE, detail)
    return source


def _secrets(ledger: Ledger, source: Source, connection: str) -> ConnectionSecrets:
    found = ledger.connection_secrets(connection)
    if found is None or found.provider != source.name:
        raise _unknown()
    if not found.webhook_secrets:  # every delivery will be refused as unsigned, and the sender is not told why
        note = {"action": "connection.no_webhook_secret", "source": source.name, "connection": connection}
        log.error("provider connection has no webhook secret", extra=note)
    return found


def _body(settings: WebSettings) -> bytes:
    """Read the body, never beyond the cap, even if Content-Length is missing or wrong. Raises Problem."""
    # One byte more than allowed: the stream simply ends at this limit, and a truncated body would look badly signed.
    request.max_content_length = settings.max_body + 1
    try:
        body = request.get_data(cache=False)
    except ClientDisconnected:
        if request.content_length is None:  # chunked: nothing tells how much is missing
            g.body_was_read = True
            raise Problem(problems.INCOMPLETE, "The body broke off before its last chunk. Send it whole.") from None
        body = b""
    if len(body) > settings.max_body:
        raise _too_large(settings)
    g.body_was_read = True
    if len(body) < (request.content_length or 0):  # RFC 9112 §8: incomplete, even if the received part is signed
        raise Problem(problems.INCOMPLETE, "The body is shorter than Content-Length says. Send it whole.")
    return body


def _too_large(settings: WebSettings) -> Problem:
    detail = f"A delivery may have {settings.max_body} bytes. Send fewer, or let the operator raise the limit."
    return Problem(problems.TOO_LARGE, detail)


def _unknown() -> Problem:
    # One answer for an unknown source, an unknown connection and a connection of another provider. The 401 for a bad
    # signature does reveal that an id exists: ids are no secret, webhook secrets are.
    detail = "There is no webhook at this address. Compare it with the one that the provider connection shows."
    return Problem(problems.UNKNOWN_CONNECTION, detail)


def _considered(
    workflows: Registry, sender: str, received: Received
) -> tuple[Sequence[Considered], DeliveryOutcome, str]:
    """Return what workflows make of the delivery, and the outcome to record and the reason if nothing follows.

    *sender* is the source's name as stored with the delivery, so that a replay matches the same workflows.
    """
    if received.unrecognised:
        return (), DeliveryOutcome.UNRECOGNISED, received.unrecognised
    if received.signal is not None or received.answer is not None:
        return (), DeliveryOutcome.IGNORED, received.note  # the ledger follows the signal, or counts the answer
    considered = workflows.consider(sender, received.event, received.document)
    why = "no workflow wants it" if considered else f"no workflow listens to {sender} {received.event}"
    return considered, DeliveryOutcome.IGNORED, received.note or why


def _told(acceptance: Acceptance) -> Mapping[str, object]:
    document: dict[str, object] = {"outcome": acceptance.outcome, "delivery": acceptance.delivery}
    if acceptance.reason:
        document["reason"] = acceptance.reason
    if acceptance.jobs:
        document["jobs"] = acceptance.jobs
    if acceptance.revocations:
        document["revocations"] = acceptance.revocations
    return document
