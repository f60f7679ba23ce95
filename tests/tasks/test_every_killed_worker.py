"""Each shipped workflow by workers of production, of which every one is killed while its step is on the wire.

`test_every_step.py` tries the same in one process, where "killed" is an exception. Here a worker's process gets SIGKILL
after the upstream has carried out what it was asked for, and before it answers; the next worker finds what is left.
The payments are tried so in `tests/payments/test_killed_workers.py`.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest

from pipeline.states import JobState, Wait
from tests.faults.time_passes import lapse_bells
from tests.system.rig import System
from tests.tasks.hands import Hands
from tests.tasks.killing import kill_on_the_wire
from tests.tasks.scenes import SCENES, Scene, Step

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


# Every path on PostgreSQL, and one of each workflow on SQLite.
@pytest.mark.parametrize(
    ("ledger", "scene"),
    [
        pytest.param(kind, scene, id=f"{scene.name}-{kind}")
        for scene in SCENES
        for kind in ("postgresql", "sqlite")
        if kind == "postgresql" or not scene.case
    ],
    indirect=["ledger"],
)
def test_a_worker_killed_while_each_step_is_on_the_wire_leaves_one_effect_or_says_that_it_does_not_know(
    worked: System, hands: Hands, scene: Scene
) -> None:
    scene.start(hands)
    doubted: Step | None = None
    for step in scene.steps:
        look = partial(look_and_say, worked, hands, doubted)
        kill_on_the_wire(worked, hands, step.upstream, step.endpoint, meanwhile=look)
        doubted = step
    worked.start("worker")
    look_and_say(worked, hands, doubted)
    (job,) = worked.settled()
    assert (job.state, job.runs_spent) == (JobState.DONE, len(scene.steps)), worked.state()
    assert [row.action for row in worked.steps(job.id)] == [step.action for step in scene.steps]
    sent_again = [step.author(hands) for step in scene.steps if step.repeatable]
    assert Counter(hands.authors()) == Counter(scene.authors(hands) + sent_again)


def look_and_say(worked: System, hands: Hands, step: Step | None) -> None:
    """Whose worker was killed over *step* has a job that waits for a person, where the upstream cannot be asked."""
    if step is None or not step.tells_nothing:
        return
    worked.wait(lambda: [job.wait for job in hands.jobs()] == [Wait.UNKNOWN], f"that nobody knows of {step.action}")
    hands.look_and_say()
    lapse_bells(worked)
