"""Calls of a job with an unknown outcome, which a person looks up and states."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.ledger.paging import Record
from pipeline.states import AttemptState, Purpose, StepState


@dataclass(frozen=True, kw_only=True)
class UnansweredCall:
    """A call whose outcome a person may state."""

    step: Record
    attempt: Record

    @property
    def sent(self) -> str:
        """The call's parameters in JSON: what to look for at the provider."""
        return json.dumps(self.step["parameters"], indent=2, ensure_ascii=False)


def unanswered_calls(steps: Iterable[Record]) -> list[UnansweredCall]:
    """Return the unanswered calls of *steps*, in order. A search for an effect has no effect of its own."""
    calls = [
        (step, one)
        for step in steps
        for one in step["attempts"]
        if one["purpose"] == Purpose.CALL and one["state"] == AttemptState.UNKNOWN
    ]
    return [UnansweredCall(step=step, attempt=one) for step, one in calls]


def by_step(steps: Iterable[Record]) -> list[list[UnansweredCall]]:
    """Return the unanswered calls grouped by step, in order, since one verdict covers a step."""
    return [calls for step in steps if (calls := unanswered_calls([step]))]


def asked_about(steps: Iterable[Record]) -> list[UnansweredCall]:
    """Return the calls that one verdict and one result can cover: of one step, preferably one that is not over."""
    return min(by_step(steps), key=lambda calls: calls[0].step["state"] != StepState.UNKNOWN, default=[])
