"""The main job, end to end, in real processes."""

from __future__ import annotations

import pytest

from pipeline.states import JobState, StepState
from tests.docs import logs
from tests.system.rig import System


@pytest.mark.parametrize("system", ["sqlite", "postgresql"], indirect=True)
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
        ("github.GetPull", "service", StepState.DONE),
        ("linear.CreateIssue", "service", StepState.DONE),
        ("github.Comment", "delegated", StepState.DONE),
        ("slack.PostMessage", "service", StepState.DONE),
        ("github.GetPull", "service", StepState.DONE),
    ]
    assert job.state == JobState.DONE
    log = {entry["attempt"]: entry for name in ("github", "linear", "slack") for entry in system.sandbox(name, "log")}
    for attempt in system.attempts():
        assert attempt.id in log
    assert [entry["actor"] for entry in system.effects("linear")] == ["ada", "aswhom-sandbox"]
    # The app's own requests are for its installation token.
    assert [entry["actor"] for entry in system.effects("github") if entry["token_kind"] != "app"] == ["ada", "ada"]
    is_followed_through_the_logs(system, {id: f"{entry['upstream']}-{entry['seq']}" for id, entry in log.items()})


def is_followed_through_the_logs(system: System, log: dict[str, str]) -> None:
    """From the delivery to what the upstream calls each request, and back, without the ledger."""
    (accepted,) = [line for line in system.logged("web") if line.get("action") == "delivery.accepted"]
    assert accepted["jobs"]
    of_delivery = [line for line in system.logged("worker") if line.get("delivery") == accepted["delivery"]]
    assert {line["job"] for line in of_delivery} == set(accepted["jobs"])
    ended = {line["attempt"]: line for line in of_delivery if line.get("action") == "attempt.effect"}
    attempts = [attempt for attempt in system.attempts() if attempt.state == "effect"]
    assert set(ended) == {attempt.id for attempt in attempts}
    for attempt in attempts:
        line = ended[attempt.id]
        assert (line["job"], line["step"]) == (attempt.job_id, attempt.step_id)
        assert (line["principal"], line["upstream_request_id"]) == (attempt.principal_id, log[attempt.id])
    every = [line.keys() for process in ("web", "worker") for line in system.logged(process)]
    for fields in logs.listed():
        if not fields & {"operation", "from"}:  # of the agents' API, and of what people did or were refused
            assert any(fields - {"request"} <= line for line in every), fields
    assert {field for line in (accepted, *ended.values()) for field in line} <= set().union(*logs.listed())
