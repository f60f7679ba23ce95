"""The calls of a job that nothing is known of but that they were sent: a person looks, and says what became of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.ledger.paging import Record
from pipeline.states import AttemptState, Purpose, StepState


@dataclass(frozen=True, kw_only=True)
class UnansweredCall:
    """A call whose outcome a person may say."""

    step: Record
    attempt: Record

    @property
    def sent(self) -> str:
        """What the call was made with, in JSON: what to look for at the provider."""
        return json.dumps(self.step["parameters"], indent=2, ensure_ascii=False)


def unanswered_calls(steps: Iterable[Record]) -> list[UnansweredCall]:
    """Those of *steps* with their attempts, in order. A search for an effect has none of its own."""
    calls = [
        (step, one)
        for step in steps
        for one in step["attempts"]
        if one["purpose"] == Purpose.CALL and one["state"] == AttemptState.UNKNOWN
    ]
    return [UnansweredCall(step=step, attempt=one) for step, one in calls]


def by_step(steps: Iterable[Record]) -> list[list[UnansweredCall]]:
    """Those of each step by themselves, as one word is about them, in order."""
    return [calls for step in steps if (calls := unanswered_calls([step]))]


def asked_about(steps: Iterable[Record]) -> list[UnansweredCall]:
    """Those that one word, and one result, can be about: of one step, first of one that is not over."""
    return min(by_step(steps), key=lambda calls: calls[0].step["state"] != StepState.UNKNOWN, default=[])
