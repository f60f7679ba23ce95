"""What is told of a job's steps: as whom, when, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import pytest

from deploy.installation import Installation
from deploy.settings import load
from pipeline.ledger import steps as ledger_steps
from tests.deploy.conftest import Cli
from tests.ledger.house import House


@pytest.fixture
def at(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """The ledger that the commands read."""
    monkeypatch.setenv("ASWHOM_WORKFLOWS", "tests.ledger.house")
    with Installation(load(data_dir=cli.data_dir)) as opened:
        yield opened


@pytest.fixture
def house(at: Installation) -> House:
    made = House(at.ledger)
    made.build()
    return made


def test_a_sleep_is_as_nobody(cli: Cli, house: House) -> None:
    job = house.claim(house.job())
    sleep = partial(ledger_steps.sleep, job=job, step="step_1", position=1, occurrence=1, request_hash="x")
    house.database.write(partial(sleep, duration=timedelta(days=3)))
    told = [line.split() for line in cli("jobs", "show", job.id).output.splitlines()]
    assert ["1", "run.sleep", "nobody", "open", "the", "workflow", "sleeps"] in told
    assert "1 run.sleep as nobody: open" in cli("tail", job.id, "--timeout", "0").output
    assert "step 1, run.sleep: as nobody\n" in cli("policy", "explain", job.id).output
