"""The gauges of the lines before token endpoints."""

from __future__ import annotations

import math
from typing import cast

import pytest
from prometheus_client import REGISTRY

from identity.errors import Unavailable
from identity.model import Credential
from identity.providers import PROFILES
from identity.sql.store import Store
from identity.token_endpoint.gate import STEP_KEEPS, Endpoint, Gate
from identity.token_endpoint.line import Waiter
from identity.token_endpoint.measured_lines import measure_lines
from tests.identity.world import World


def shown(name: str, provider: str = "github") -> float | None:
    return REGISTRY.get_sample_value(f"aswhom_token_{name}", {"provider": provider})


def test_a_line_is_shown_by_its_provider_with_what_the_next_would_wait(world: World) -> None:
    now = [1000.0]
    gate = Gate(None, monotonic=lambda: now[0])
    where = Endpoint.of(world.owner, Credential.AUTHORIZATION_CODE)
    pace = PROFILES[world.owner.provider].token_pace
    measure_lines(world.store, gate, PROFILES)
    assert (shown("line"), shown("line_seconds")) == (0, 0)
    while gate.enter(where, pace, keep=STEP_KEEPS) is None:
        pass
    for n in range(50):
        gate.look(where, pace, keep=STEP_KEEPS, who=Waiter(f"acc_{n}"))
    measure_lines(world.store, gate, PROFILES)
    assert shown("line") == 50
    assert shown("line_seconds") == pytest.approx(51 * pace.interval.total_seconds(), abs=0.01)
    assert (shown("line", "linear"), shown("line_seconds", "linear")) == (0, 0)
    now[0] += 3600  # nobody came back
    measure_lines(world.store, gate, PROFILES)
    assert (shown("line"), shown("line_seconds")) == (0, 0)


def test_a_line_that_cannot_be_measured_shows_no_number(world: World) -> None:
    class Away:
        def read(self, _fn: object) -> object:
            raise Unavailable("no ledger")

    measure_lines(world.store, Gate(None), PROFILES)
    with pytest.raises(Unavailable):
        measure_lines(cast("Store", Away()), Gate(None), PROFILES)
    assert math.isnan(shown("line_seconds") or 0)
