"""The demo's live table and its document: each step with what, as whom, by which pattern, why and what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import update

from deploy.demo.sight import Sight
from deploy.demo.telling import Spoken
from deploy.trial.trial import NoRing
from pipeline.authoring.registry import Registry
from pipeline.db.database import DatabaseSettings
from pipeline.db.sqlite import SqliteDatabase
from pipeline.runtime import Runtime
from pipeline.runtime_settings import Keys, RuntimeSettings
from pipeline.tables import steps
from tests.console.console_app import ConsoleApp
from tests.ledgers import TURN

STEP = {
    "job": "job_01J0000000000000000ABCDEF",
    "step": "step_1",
    "action": "github.Comment",
    "principal": "acme.ada",
    "pattern": "delegated",
    "reason": "named by the workflow: attribution required, user-triggered, write",
    "status": "done",
}
HEADING = ["job", "action", "as", "whom", "pattern", "status", "why:", "named", "by", "the", "workflow:", "…"]


@pytest.fixture
def console(sqlite_database: SqliteDatabase) -> Iterator[ConsoleApp]:
    with closing(ConsoleApp(sqlite_database)) as built:
        yield built


@pytest.fixture
def sight(console: ConsoleApp, sqlite_database: SqliteDatabase) -> Iterator[Sight]:
    """Of the console's ledger."""
    settings = RuntimeSettings(
        database=DatabaseSettings(url=f"sqlite:///{sqlite_database.path}", turn_timeout=TURN),
        keys=Keys(vault={1: b"k" * 32}, signing=b"s" * 32),
        base_url="http://127.0.0.1:1",
    )
    with closing(Runtime(settings, Registry([console.house.workflow]), NoRing())) as runtime:
        yield Sight(runtime)


def test_a_step_of_the_document_says_what_as_whom_by_which_pattern_why_and_its_status(
    console: ConsoleApp, sight: Sight
) -> None:
    job = console.done()
    (step,) = console.house.database.read(lambda c: c.execute(steps.select()).all())
    (told,) = sight.steps()
    assert told == {
        "job": job,
        "step": step.id,
        "action": "github.Say",
        "principal": "acme.ada",
        "pattern": "delegated",
        "reason": "named by the workflow",
        "status": "done",
    }
    # What another job did under the same once key is told apart from what this one did.
    console.database.write(lambda c: c.execute(update(steps).values(adopted_from="step_of_another")).rowcount)
    assert sight.steps() == [{**told, "status": "adopted"}]


def test_every_step_that_closed_is_a_line_of_the_live_table(
    console: ConsoleApp, sight: Sight, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = (console.done(), console.in_doubt())
    Spoken().steps(sight.steps())
    told = {job: ["acme.ada", "delegated", status] for job, status in zip(ids, ("done", "unknown"), strict=True)}
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    whys = ["named", "by", "the", "workflow"]
    assert lines[0] == HEADING
    assert sorted(lines[1:]) == sorted([job[-6:], "github.Say", *rest, *whys] for job, rest in told.items())


def test_a_table_is_headed_again_once_something_else_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    teller = Spoken()
    teller.steps([STEP])
    teller.steps([STEP | {"status": "refused"}])
    teller.line("Grace withdraws her consent.")
    teller.steps([STEP])
    told = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    line = ["ABCDEF", "github.Comment", "acme.ada", "delegated"]
    because = ["attribution", "required,", "user-triggered,", "write"]  # the heading has said the rest
    assert told == [
        HEADING,
        [*line, "done", *because],
        [*line, "refused", *because],
        ["Grace", "withdraws", "her", "consent."],
        HEADING,
        [*line, "done", *because],
    ]


def test_a_table_tells_ids_by_their_ends_moments_by_their_time_and_nothing_as_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = {"account": "con_01m8jrred8pbrejexqjfkpnre4", "at": "2026-11-29T04:24:44.077699+00:00"}
    Spoken().table("At the provider", [told | {"why": None, "holds": True, "of": "grant_of_ada"}])
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "grant" in line]
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["…kpnre4", "04:24:44 UTC", "", "yes", "grant_of_ada"]
