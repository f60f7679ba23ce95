"""An action that says its repository is done by an installation token for that one and that permission."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.ledger.deliveries import insert_job
from pipeline.states import AttemptState, JobState
from pipeline.tool_workflows import ToolCall
from pipeline.workflow import SERVICE
from tasks.actions import github
from tests.sandbox.driver import Sandbox
from tests.tasks.town import Town

MINTS = "/access_tokens"


@pytest.fixture
def agents(_upstreams: Sandbox, _furnished: Path, tmp_path: Path) -> Iterator[Town]:
    """A worker's runtime that also knows the tools."""
    shutil.copy(_furnished, tmp_path / "ledger.sqlite")
    made = Town(_upstreams, f"sqlite:///{tmp_path}/ledger.sqlite", workflows=("tasks.actions.github",))
    yield made
    made.close()


def ask(town: Town, job: str, action: github.AddLabels) -> None:
    """An agent of acme's asks for it as the service."""
    call = ToolCall(parameters=action.model_dump(mode="json"), requested_by="key_1").model_dump(mode="json")
    insert = partial(
        insert_job,
        id=job,
        tenant="acme",
        workflow=town.registry.for_tool(github.AddLabels, SERVICE),
        user=None,
        triggered_by=None,
        event=call,
        config={},
        delivery=None,
        source_connection=None,
        now=datetime.now(UTC),
    )
    town.runtime.database.write(insert)


def entries(town: Town, ending: str) -> list[Mapping[str, Any]]:
    log: list[Mapping[str, Any]] = town.sandbox.read("github", "log")
    return [one for one in log if one["path"].endswith(ending)]


def test_an_installations_token_is_for_the_one_repository_and_is_kept_for_the_next_step(agents: Town) -> None:
    town = agents
    number = town.pull("acme/shop", "grace")
    mints, before = len(entries(town, MINTS)), len(entries(town, "/labels"))
    for job, label in (("job_1", "bug"), ("job_2", "later")):
        ask(town, job, github.AddLabels(repo="acme/shop", number=number, labels=(label,)))
        town.settle()
    assert {row.state for row in town.jobs() if row.id in ("job_1", "job_2")} == {JobState.DONE}
    labelled = entries(town, "/labels")[before:]
    assert len({one["token_fingerprint"] for one in labelled}) == 1
    minted = entries(town, MINTS)[mints:]
    assert len(minted) == 2, "the account's own, and one for the repository"
    assert [attempt.state for attempt in town.attempts()] == [AttemptState.EFFECT] * 2
