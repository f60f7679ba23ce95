"""What must not be lost is written once the ledger is back, and asks for it ever more seldom."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from identity.errors import Unavailable
from identity.sql.persistent_write import PersistentWrite
from identity.sql.store import CommitUnknown


class AwayFor:
    """A ledger that answers at the try after so many; its time passes by pauses alone."""

    def __init__(self, tries: int) -> None:
        self.tries = tries
        self.pauses: list[float] = []

    def write(self, fn: Callable[[Connection], Any]) -> Any:
        if len(self.pauses) < self.tries:
            raise CommitUnknown("the disk is full")
        return "written"

    def read(self, fn: Callable[[Connection], Any]) -> Any:
        raise AssertionError("nothing is read")

    def keep(self, **settings: Any) -> Any:
        persistent = PersistentWrite(monotonic=lambda: sum(self.pauses), sleep=self.pauses.append, **settings)
        return persistent.write(self, lambda c: None, what="an answer", where={"action": "answer.not_stored"})


def test_the_pauses_grow_and_the_log_has_one_stack_of_the_first_failure(caplog: pytest.LogCaptureFixture) -> None:
    ledger = AwayFor(12)
    with caplog.at_level(logging.ERROR):
        assert ledger.keep() == "written"
    assert all(0.05 * 2**n <= pause <= min(0.1 * 2**n, 2) for n, pause in enumerate(ledger.pauses[:5]))
    assert all(1 <= pause <= 2 for pause in ledger.pauses[5:])
    assert [vars(line)["action"] for line in caplog.records] == ["answer.not_stored"]


def test_it_gives_up_when_the_time_is_over_or_when_it_is_told_to() -> None:
    patient, told = AwayFor(1_000), AwayFor(1_000)
    with pytest.raises(Unavailable, match="an answer could not be stored"):
        patient.keep(within=timedelta(seconds=10))
    assert 10 <= sum(patient.pauses) <= 12
    with pytest.raises(Unavailable, match="an answer could not be stored"):
        told.keep(gives_up=lambda: len(told.pauses) == 3)
    assert len(told.pauses) == 3
