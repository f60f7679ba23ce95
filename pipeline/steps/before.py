"""Checks that come before a step's call: those that its opening and its failure without a call have in common.

`pipeline.steps.openings` opens a step; `pipeline.steps.failures` fails one that has waited for its upstream in vain.
Each takes the locks of the step's scopes and then its job's claim before it comes here.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, Row

from identity.connections.registry import present_address
from identity.hold import HELD, IS_HELD
from identity.model import RuledOut
from identity.policy.ledger import current_version
from identity.sql.columns import database_now
from pipeline.jobs.calls import give_way
from pipeline.jobs.claims import ClaimedJob, requeue
from pipeline.jobs.intents import Adopted, Ended, Intent, OnceMismatch, PolicyMoved, Skipped
from pipeline.states import Purpose
from pipeline.steps.once import take_once
from pipeline.steps.refusals import rule_out

T = TypeVar("T")

#: Columns of a statement with the parameters *tenant* and *through*: what an intent was made from, as it is now.
PRESENT = (
    database_now().label("now"),
    current_version().label("policy"),
    present_address().label("api_url"),
    IS_HELD.label("is_held"),
)


def go_on(
    connection: Connection, intent: Intent, present: Row[Any], examine: Callable[[], RuledOut | T]
) -> Ended | PolicyMoved | Skipped | T:
    """Return the outcome of *examine*, which applies the rule, unless the step must end here or be looked at again.

    *present*: a row of `PRESENT`.
    """
    if present.is_held:  # due at once: no worker claims it before the release
        return look_again(connection, intent.job, HELD)
    if present.policy != intent.decision.policy:
        return PolicyMoved()
    outcome = examine()
    if isinstance(outcome, RuledOut):
        return rule_out(connection, intent, outcome, present.now)
    # The run read the connection's address before this transaction. The connection may since have been removed, or
    # registered again under its id with another address. A token for the new API must not go to the old address, nor
    # must the step fail because the old one was away.
    if present.api_url != intent.api_url:
        what = "was removed" if present.api_url is None else "has another address"
        return look_again(connection, intent.job, f"provider connection {intent.connection} {what}: it looks again")
    return outcome


def done_before(
    connection: Connection, intent: Intent, now: datetime, *, overtaken: bool
) -> Adopted | Ended | OnceMismatch | None:
    """Give way to an earlier call of an *overtaken* step, or to the owner of its once key. None: the step is first."""
    if overtaken:
        return give_way(connection, intent)
    if intent.once is None or intent.purpose is not Purpose.CALL:
        return None
    return take_once(connection, intent, now)


def look_again(connection: Connection, job: ClaimedJob, reason: str) -> Ended:
    """End the run; the job is due again at once."""
    return Ended(reason=reason, moved=requeue(connection, job, delay=timedelta(), reason=reason))
