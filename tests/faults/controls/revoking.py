"""What each guard of a step's own word about revocations is for: without it, the test that watches it fails."""

from __future__ import annotations

from tests.faults.control import Control

STEPS = "tests/ledger/test_stricter_steps.py"

CONTROLS = (
    Control(
        name="a step stricter than its action is not skipped",
        file="pipeline/uses.py",
        guard="return declared if asked is None else asked",
        without="return declared",
        test=f"{STEPS}::test_of_two_steps_of_one_action and sqlite",
    ),
    Control(
        name="no step is looser than its action",
        file="pipeline/uses.py",
        guard="if asked not in (None, STOP, declared):",
        without="if False:",
        test=f"{STEPS}::test_a_step_that_is_looser_than_its_action and sqlite",
    ),
)
