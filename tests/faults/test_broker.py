"""Valkey emptied, killed and away, under load: it holds nothing that cannot be rebuilt."""

from __future__ import annotations

import random

import pytest

from tests.faults.endings import count_moves_to_an_end
from tests.faults.pulls import done, everything_is_done, open_pulls, out
from tests.faults.time_passes import AWHILE, lapse_bells
from tests.system.rig import System


@pytest.mark.timeout(400)
def test_what_was_accepted_ends_though_the_broker_forgets_dies_and_stays_away(system: System) -> None:
    system.connect("acme", "ada")
    count_moves_to_an_end(system)
    pulls = open_pulls(system, 12)
    system.start("worker")
    system.wait(lambda: done(system) > 0, "work under way")
    system.broker.flush()
    pulls += open_pulls(system, 6)
    system.broker.restart()  # kill -9, and the same data
    pulls += open_pulls(system, 6)
    lapse_bells(system)
    everything_is_done(system, pulls, seconds=AWHILE)
    # Now nobody works whose end would ring for the next: the dispatcher alone brings these.
    system.broker.kill()
    pulls += open_pulls(system, 6)
    assert done(system) == len(pulls) - 6
    system.broker.restart()
    lapse_bells(system)
    everything_is_done(system, pulls, seconds=AWHILE)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_saturated_worker_survives_six_broker_kills(system: System, seed: random.Random) -> None:
    """Every slot is in a slow call at each kill; the broker stays away long enough for bells to be lost."""
    system.connect("acme", "ada")
    count_moves_to_an_end(system)
    system.concurrency = 4
    pulls: list[str] = []
    system.order("linear", "faults", mode="delay", endpoint="issueCreate", seconds=0.6, times=10_000)
    system.start("worker")
    for n in range(6):
        pulls += open_pulls(system, 16)
        system.wait(lambda: out(system) == system.concurrency, "a call in every slot")
        system.broker.kill()
        pulls += open_pulls(system, seed.randint(1, 5))
        if n % 2:
            system.wait(lambda: not out(system), "the end of the calls that are out")
        system.broker.restart()
        if n % 3 == 2:
            system.broker.flush()
    everything_is_done(system, pulls, seconds=240)
