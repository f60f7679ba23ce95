"""What the guards of searches for an effect are for: without one, the test that watches it fails."""

from __future__ import annotations

from tests.faults.control import Control

LATE = "tests/ledger/test_late_searches.py"

CONTROLS = (
    Control(
        name="a search that was given up ends no job by finding nothing",
        file="pipeline/execution/opened_attempt.py",
        guard="if opened.close("
        "AttemptState.NO_EFFECT, StepState.FAILED, error=error, resolves=AttemptState.NO_EFFECT):",
        without="if opened.close(AttemptState.NO_EFFECT, StepState.FAILED, error=error) is not None:",
        test=f"{LATE}::test_a_run_whose_search_was_given_up_before_its_answer and sqlite-2",
    ),
    Control(
        name="what housekeeping settled is no confirmation of a commit",
        file="pipeline/steps/closings.py",
        guard="if _is_recorded(connection, id):",
        without="if True:",
        test=f"{LATE}::test_a_search_that_is_given_up_after_a_commit and sqlite",
    ),
    Control(
        name="a call that is answered after its step has ended gives no result of its own",
        file="pipeline/execution/opened_attempt.py",
        guard="if not counts:",
        without="if False:",
        test=f"{LATE}::test_a_run_whose_call_is_answered_after_a_late_search and sqlite-200-None",
    ),
    Control(
        name="a call whose commit was not seen gives no result of its own either",
        file="pipeline/steps/closings.py",
        guard="stands = ended.state == closing.step_state and "
        "(closing.result is None or ended.result == closing.result)",
        without="stands = ended.state == closing.step_state",
        test=f"{LATE}::test_a_run_whose_call_is_answered_after_a_late_search and sqlite-200-commit",
    ),
    Control(
        name="a late finding is of the calls before the search",
        file="pipeline/steps/closings.py",
        guard="before = attempt.opened if attempt.purpose == Purpose.PROBE else None",
        without="before = None",
        test=f"{LATE}::test_a_late_finding_is_of_the_calls_before and sqlite-unknown",
    ),
    Control(
        name="nothing is sent for an effect that was found late",
        file="pipeline/jobs/calls.py",
        guard="return bool(connection.execute(select(other | found)).scalar_one())",
        without="return bool(connection.execute(select(other)).scalar_one())",
        test=f"{LATE}::test_nothing_is_sent_for_an_effect and sqlite",
    ),
    Control(
        name="a late finding and the opening of a further call see each other",
        file="pipeline/steps/closings.py",
        guard='_LOCK_JOB.run(connection, {"job": row.job_id})',
        without="pass",
        test=f"{LATE}::test_a_call_that_opens_while_a_search_finds and postgresql",
    ),
    Control(
        name="a search that stands still is over before anything more is sent",
        file="pipeline/execution/step.py",
        guard="for row in (*open_ended, *searches):",
        without="for row in open_ended:",
        test=f"{LATE}::test_a_search_that_stands_still_is_over and sqlite",
    ),
    Control(
        name="a call without an answer is looked for at its own connection alone",
        file="pipeline/execution/step.py",
        guard="if elsewhere and step.action.facts.effect is not Effect.READ:",
        without="if False:",
        test="tests/ledger/test_next_connection.py::test_a_call_of_unknown_outcome and sqlite-searched",
    ),
)
