"""Re-reads stored deliveries: which workflows would match a body that was received before."""

from __future__ import annotations

from typing import Any

from identity.errors import BadInput
from identity.model import ProviderConnection
from pipeline.approvals.news import SOURCE as OURS
from pipeline.authoring.matching import Considered
from pipeline.authoring.registry import Registry
from pipeline.deliveries.weighing import Stored
from pipeline.model import DeliveryOutcome
from webhooks.sources import SOURCES
from webhooks.sources.document import Malformed
from webhooks.sources.reading import Challenge, Received


def reconsider(row: dict[str, Any], owner: ProviderConnection, workflows: Registry) -> tuple[Stored, list[Considered]]:
    """Return the delivery of *row*, received by *owner*, and each workflow's verdict on it. Raises BadInput."""
    id, outcome = row["id"], row["outcome"]
    followed = outcome == DeliveryOutcome.SIGNAL
    if not row["body"]:
        raise BadInput(f"the body of {id} was forgotten, as its retention says: nothing can be made of it")
    if row["source"] == OURS:  # from a sender configured with our reserved name before it was reserved
        raise BadInput(f"{id} came from outside as {OURS}: nothing is made of it")
    reading = _reading(row, owner)
    if reading.unrecognised and not followed:
        raise _not_read(row, reading.unrecognised)
    if reading.signal is not None and not followed:
        by_hand = _replay_of_jobs(row) or "Withdraw by hand what it withdraws, with `aswhom revoke`"
        raise BadInput(f"{id} is a signal, and a replay carries out none: {reading.signal.reason}. {by_hand}")
    if reading.answer is not None and outcome != DeliveryOutcome.ACCEPTED:
        raise BadInput(
            f"{id} is an answer to an approval, and a replay counts none: let the person answer again, if it is open"
        )
    stored = Stored(
        id=id,
        connection=owner.id,
        event=reading.event,
        delivery_id=reading.delivery_id,
        installation=reading.installation,
        workspace=reading.workspace,
    )
    # An answer that was counted is for no workflow, as on arrival.
    offered = reading.answer is None
    return stored, workflows.consider(row["source"], reading.event, reading.document) if offered else []


def _reading(row: dict[str, Any], owner: ProviderConnection) -> Received:
    """Return what this version reads in the body of *row*. Raises BadInput."""
    try:
        reading = SOURCES[owner.provider].of(owner.config).reread(row["event"], row["delivery_id"], row["body"])
    except Malformed as error:
        raise _not_read(row, str(error)) from error
    if isinstance(reading, Challenge):
        raise BadInput(f"{row['id']} only checks the address that it was sent to: there is nothing to do")
    return reading


def _not_read(row: dict[str, Any], why: str) -> BadInput:
    by_hand = _replay_of_jobs(row) or "Do by hand what it meant"
    return BadInput(f"{row['id']} cannot be read by this version: {why}. {by_hand}")


def _replay_of_jobs(row: dict[str, Any]) -> str:
    """Return what to do about a delivery from which an earlier version started jobs; "" if none did."""
    if row["outcome"] != DeliveryOutcome.ACCEPTED or not row["jobs"]:
        return ""
    return f"It started jobs when it came. If they are dead: `aswhom jobs replay {' '.join(row['jobs'])}`"
