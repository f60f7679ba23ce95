"""Parts without which more authority would be used, or limits would hold less, cannot be left out by mistake."""

from __future__ import annotations

import inspect

import pytest

from identity.connect.flow import ConnectFlow
from identity.refresh.parts import RefreshParts
from pipeline.execution.services import Services
from webhooks.quota import Rates


@pytest.mark.parametrize(
    ("composed", "names"),
    [
        (Services, {"confiner", "budgets", "breakers", "in_flight"}),
        (RefreshParts, {"restored"}),
        (ConnectFlow, {"gate"}),
        (Rates, {"tenant", "nobodys", "connection"}),
    ],
)
def test_a_part_that_limits_has_no_default(composed: type, names: set[str]) -> None:
    parameters = inspect.signature(composed).parameters
    assert {name for name in names if parameters[name].default is not inspect.Parameter.empty} == set()
