"""What the guards of schedules and budgets are for: without one, the test that watches it fails."""

from __future__ import annotations

from tests.faults.control import Control

CONTROLS = (
    Control(
        name="a repeated hour",
        file="pipeline/schedules/timetable.py",
        guard="if slot > moment:",
        without="if slot:",
        test="tests/ledger/test_timetable.py::test_from_any_moment_the_next_slot_is_later",
    ),
    Control(
        name="a slot fires once",
        file="pipeline/schedules/slots.py",
        guard="if not insert_new(connection, slots, taken):",
        without="if not connection:",
        test="tests/ledger/test_schedules.py::test_a_removed_schedule_that_is_added_again and sqlite",
    ),
    Control(
        name="what is drawn is gone",
        file="pipeline/budget.lua",
        guard='set("remaining", state.remaining - 1)',
        without='set("remaining", state.remaining)',
        test="tests/ledger/test_budget.py::test_threads_that_draw_at_once",
    ),
    Control(
        name="a pause is of all workers",
        file="pipeline/budget.lua",
        guard="wait = math.max((state.held or 0) - now, whole - now, 0)",
        without="wait = 0",
        test="tests/ledger/test_budget.py::test_a_pause_is_of_its_class",
    ),
)
