"""Systems that are about to be hurt, each with a seed that is printed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import pytest

from tests.chance import seed_of
from tests.faults.control import COLLECTED
from tests.servers.postgres import Postgres
from tests.system.conftest import broker, start_system
from tests.system.rig import WORKFLOWS, System

__all__ = ["broker", "start_system"]  # fixtures here too

# A job may lose many runs here before it is given up.
SETTINGS = {
    "ASWHOM_JOB_RUNS": "100",
    "ASWHOM_STEP_ATTEMPTS": "50",
    "ASWHOM_WINDOW": "16",
}
# For tests that wait until the claim of a killed worker lapses, or until a call of unknown outcome is looked for. On a
# slow machine these limits cost further attempts, so such tests do not count them.
IMPATIENT = {"ASWHOM_SEND_WITHIN": "1", "ASWHOM_CALL_DEADLINE": "5", "ASWHOM_WORKER_HOLD": "2"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep all that was collected, before the slow tests are deselected."""
    config.stash[COLLECTED] = [*items]


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> random.Random:
    """A source of chance, another each time in the slow tests; FAULTS_SEED repeats what a failure printed."""
    return random.Random(seed_of(slow=request.node.get_closest_marker("slow") is not None))


@pytest.fixture
def settings() -> Mapping[str, str]:
    """What a test module shortens or lengthens besides."""
    return {}


@pytest.fixture
def sqlite_system(start_system: Callable[..., System], settings: Mapping[str, str]) -> System:
    """A sandbox and the web process; the test starts the rest."""
    system = start_system(**SETTINGS, **settings)
    system.start("web", "revocations", "housekeeping")
    return system


@pytest.fixture
def workflows() -> tuple[str, ...]:
    """The modules of the workflows that a system runs; a test module may say others."""
    return WORKFLOWS


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def system(
    request: pytest.FixtureRequest,
    start_system: Callable[..., System],
    workflows: tuple[str, ...],
    settings: Mapping[str, str],
) -> System:
    """The same on each database; PostgreSQL with the slow tests."""
    given = {**SETTINGS, "ASWHOM_WORKFLOWS": ",".join(workflows), **settings}
    if request.param == "sqlite":
        system = start_system(**given)
    else:
        cluster: Postgres = request.getfixturevalue("postgres")
        system = start_system(cluster.url(cluster.create_database()), **given)
    system.start("web", "revocations", "housekeeping")
    return system
