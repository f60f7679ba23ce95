"""Workers of production beside the pretend upstreams, and their end while a step is on the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.trial.passing import time_passes
from pipeline.states import AttemptState
from tests.faults.conftest import SETTINGS
from tests.faults.time_passes import lapse_bells
from tests.sandbox.driver import Sandbox
from tests.servers.valkey import Valkey
from tests.system.rig import System
from tests.tasks.hands import Hands

HELD = 60  # seconds for which an answer is kept back: longer than it takes to kill who waits for it


@contextmanager
def beside(
    sandbox: Sandbox, url: str, broker: Valkey, directory: Path, *, base_url: str, workflows: tuple[str, ...]
) -> Iterator[System]:
    """An installation with the world's tenants on a migrated ledger, and its housekeeping; tests start its workers."""
    about = {"ASWHOM_BASE_URL": base_url, "ASWHOM_WORKFLOWS": ",".join(workflows)}
    system = System(directory, url, broker, sandbox.world, **{**SETTINGS, **about})
    try:
        system.furnish()
        system.start("housekeeping")
        yield system
    finally:
        system.close()


def kill_on_the_wire(
    system: System, hands: Hands, upstream: str, endpoint: str, *, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """A worker starts, and gets SIGKILL when the upstream has done what *endpoint* is asked for, and says nothing yet.

    *meanwhile*: what the job needs before it comes there. Afterwards nobody has to wait for what the worker held.
    """
    before = len(hands.sandbox.read(upstream, "log"))

    def is_held() -> bool:
        log = hands.sandbox.read(upstream, "log")[before:]
        return any(entry["fault"] == "delay" and entry["status"] is not None for entry in log)

    hands.sandbox.order(upstream, "faults", mode="delay", endpoint=endpoint, seconds=HELD)
    system.start("worker")
    meanwhile()
    system.wait(is_held, f"{endpoint} on the wire")
    system.kill("worker")
    assert AttemptState.OPEN in {row.state for row in hands.attempts()}
    hands.sandbox.order(upstream, "release")  # whoever waited for the answer is no more
    system.runtime.database.write(time_passes)
    lapse_bells(system)
