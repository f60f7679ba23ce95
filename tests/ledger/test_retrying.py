"""The rule of retries, case by case."""

from __future__ import annotations

import pytest

from pipeline.execution.retrying import Retry


def _plain(*, counted: int) -> Retry:
    """A failure that begins no wait and meets none."""
    return Retry(limit=10, counted=counted, waits=False, over=False, outage=False, excused=True)


def _waiting(*, counted: int, over: bool = False, outage: bool = False) -> Retry:
    """A failure that begins a wait for the upstream, or falls into one."""
    return Retry(limit=10, counted=counted, waits=True, over=over, outage=outage, excused=True)


def _patient(*, counted: int, over: bool = False, outage: bool = False) -> Retry:
    return Retry(limit=10, counted=counted, waits=True, over=over, outage=outage, excused=False)


@pytest.mark.parametrize(
    ("retry", "is_free", "follows"),
    [
        (_plain(counted=0), False, True),
        (_plain(counted=8), False, True),
        (_plain(counted=9), False, False),
        # while the step waits for its upstream, whatever that answers
        (_waiting(counted=9), True, True),
        (_waiting(counted=9, outage=True), True, True),
        # after its time, each failure counts, and an outage is the end
        (_waiting(counted=8, over=True), False, True),
        (_waiting(counted=9, over=True), False, False),
        (_waiting(counted=0, over=True, outage=True), False, False),
        (_waiting(counted=9, over=True, outage=True), False, False),
        # an author's patience
        (_patient(counted=30), False, True),
        (_patient(counted=30, outage=True), False, True),
        (_patient(counted=3, over=True), False, True),
        (_patient(counted=30, over=True), False, False),
        (_patient(counted=3, over=True, outage=True), False, False),
    ],
)
def test_an_attempt_counts_or_is_free_and_another_follows_or_none(retry: Retry, is_free: bool, follows: bool) -> None:
    assert (retry.is_free, retry.follows) == (is_free, follows)
