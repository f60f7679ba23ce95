"""The main job, end to end, in real processes."""

from __future__ import annotations

from pipeline.states import JobState, StepState
from tests.system.rig import System


def test_a_labelled_pull_request_becomes_work_in_the_right_names(system: System) -> None:
    system.connect("acme", "ada")
    system.pull("acme/shop", "ada", "bug", "infra")
    system.wait(system.jobs, "an accepted job")
    (job, *_) = system.settled()
    steps = system.steps(job.id)
    assert [(step.action, step.pattern, step.state) for step in steps] == [
        ("github.GetPull", "service", StepState.DONE),
        ("linear.CreateIssue", "delegated", StepState.DONE),
        ("github.Comment", "delegated", StepState.DONE),
        ("slack.PostMessage", "service", StepState.DONE),
        ("linear.CreateIssue", "service", StepState.DONE),
        ("github.Comment", "delegated", StepState.DONE),
        ("slack.PostMessage", "service", StepState.DONE),
    ]
    assert job.state == JobState.DONE
    log = {entry["attempt"]: entry for name in ("github", "linear", "slack") for entry in system.sandbox(name, "log")}
    for attempt in system.attempts():
        assert attempt.id in log
    assert [entry["actor"] for entry in system.effects("linear")] == ["ada", "aswhom-sandbox"]
    # The app's own requests are for its installation token.
    assert [entry["actor"] for entry in system.effects("github") if entry["token_kind"] != "app"] == ["ada", "ada"]
