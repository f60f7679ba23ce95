"""The rule of retries, case by case."""

from __future__ import annotations

import pytest

from pipeline.execution.retrying import Retry

AWAY, LATER = "upstream/step_1", "later/step_1"


def _retry(*, counted: int = 0, until_now: str | None = None, over: bool = False, now: str | None, ours: bool) -> Retry:
    return Retry(limit=10, counted=counted, waits_out=until_now, over=over, waits_for=now, excused=not ours)


@pytest.mark.parametrize(
    ("retry", "is_free", "follows"),
    [
        # a failure that nothing excuses
        (_retry(now=None, ours=True), False, True),
        (_retry(counted=8, now=None, ours=True), False, True),
        (_retry(counted=9, now=None, ours=True), False, False),
        (_retry(counted=9, until_now=AWAY, now=None, ours=True), False, False),
        # an outage, or a refusal that names a time
        (_retry(counted=9, now=AWAY, ours=False), True, True),
        (_retry(counted=9, until_now=AWAY, now=AWAY, ours=False), True, True),
        (_retry(counted=8, until_now=AWAY, over=True, now=AWAY, ours=False), False, True),
        (_retry(counted=9, until_now=AWAY, over=True, now=AWAY, ours=False), False, False),
        # one after the other
        (_retry(counted=8, until_now=AWAY, now=LATER, ours=False), False, True),
        (_retry(counted=9, until_now=AWAY, now=LATER, ours=False), False, False),
        (_retry(counted=9, until_now=LATER, over=True, now=AWAY, ours=False), False, False),
        # an author's patience
        (_retry(counted=30, now=AWAY, ours=True), False, True),
        (_retry(counted=30, until_now=AWAY, now=AWAY, ours=True), False, True),
        (_retry(counted=30, until_now=AWAY, over=True, now=AWAY, ours=True), False, False),
        (_retry(counted=3, until_now=AWAY, over=True, now=AWAY, ours=True), False, True),
    ],
)
def test_an_attempt_counts_or_is_free_and_another_follows_or_none(retry: Retry, is_free: bool, follows: bool) -> None:
    assert (retry.is_free, retry.follows) == (is_free, follows)
