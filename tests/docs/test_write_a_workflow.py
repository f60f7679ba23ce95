"""The workflow of docs/howto/write-a-workflow.md is one that runs, and does as the page says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from identity.model import AccessPattern
from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.registry import Registry
from pipeline.authoring.uses import Who
from pipeline.execution.interruption import RunEnded
from pipeline.run import Run, StepSpec
from pipeline.workflow import SERVICE, USER
from tasks.actions import github
from tasks.events.github import PullRequestEvent
from tests.docs.pages import blocks, page
from webhooks.sources import SOURCES

PULL = github.PullRequest(
    repo="acme/shop",
    number=7,
    title="A change",
    html_url="https://github.com/acme/shop/pull/7",
    state="open",
    draft=False,
    merged=False,
    author=None,
    labels=("triage",),
)
BODY = {
    "action": "opened",
    "pull_request": {
        "number": 7,
        "title": "A change",
        "html_url": PULL.html_url,
        "draft": False,
        "merged": False,
        "user": {"id": 1, "login": "ada"},
        "labels": [],
    },
    "repository": {"full_name": "acme/shop"},
    "sender": {"id": 1, "login": "ada"},
}


@pytest.fixture
def triage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workflow]:
    (code,) = blocks(page("howto/write-a-workflow.md"), "python")
    (tmp_path / "triage.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield Registry.load(["triage"]).get("triage")
    del sys.modules["triage"]


class Steps:
    """Answers each action from a script, and remembers who did what."""

    def __init__(self, *, awake: bool = True) -> None:
        self.done: list[tuple[str, Who | None]] = []
        self.slept: timedelta | None = None
        self._awake = awake

    def perform(self, spec: StepSpec[Any]) -> Any:
        name = spec.action.action_name()
        self.done.append((name, spec.named))
        results = {
            "github.AddLabels": github.LabelNames(names=("triage",)),
            "github.GetPull": PULL,
            "github.Comment": github.Made(id=1, html_url=PULL.html_url),
        }
        return results[name]

    def sleep(self, position: int, occurrence: int, duration: timedelta) -> None:
        self.slept = duration
        if not self._awake:
            raise RunEnded("asleep")


def _run(triage: Workflow, steps: Steps, *, has_user: bool = True) -> None:
    (match,) = Registry([triage]).match("github", "pull_request", BODY)
    assert isinstance(match.event, PullRequestEvent)
    run: Run[Any] = Run(steps, job="job_1", tenant="acme", config=triage.config(), has_user=has_user)
    triage.function(run, match.event)


def test_it_is_taken_and_tagged_as_the_page_says(triage: Workflow) -> None:
    assert triage.pattern is AccessPattern.HYBRID
    assert {trigger.source for trigger in triage.on} <= SOURCES.keys()


def test_it_labels_as_the_platform_and_reminds_as_the_author(triage: Workflow) -> None:
    steps = Steps()
    _run(triage, steps)
    assert steps.done == [("github.AddLabels", SERVICE), ("github.GetPull", SERVICE), ("github.Comment", USER)]
    assert steps.slept == timedelta(days=3)


def test_a_stranger_is_not_reminded(triage: Workflow) -> None:
    steps = Steps()
    _run(triage, steps, has_user=False)
    assert steps.done == [("github.AddLabels", SERVICE), ("github.GetPull", SERVICE)]


def test_nothing_follows_a_sleep_that_is_not_over(triage: Workflow) -> None:
    steps = Steps(awake=False)
    with pytest.raises(RunEnded):
        _run(triage, steps)
    assert steps.done == [("github.AddLabels", SERVICE)]
