"""One word about very many calls that got no answer: that they had no effect."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import Connection, update

from deploy.installation import Installation
from deploy.settings import load
from pipeline.states import JobState
from pipeline.tables import attempts, jobs, steps
from tests.console.console_app import ConsoleApp
from tests.deploy.conftest import Cli

EARLY = datetime(2026, 1, 2, 8, tzinfo=UTC)


@pytest.fixture
def in_doubt(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Four jobs that wait for a person's word: an hour apart from eight o'clock, the third about another action."""
    monkeypatch.setenv("ASWHOM_WORKFLOWS", "tests.ledger.house")
    with Installation(load(data_dir=cli.data_dir)) as at:
        console = ConsoleApp(at.ledger)
        made = [console.in_doubt() for _ in range(4)]
        for hours, job in enumerate(made):
            sent = update(attempts).where(attempts.c.job_id == job).values(opened_at=EARLY + timedelta(hours=hours))
            at.write(partial(Connection.execute, statement=sent))
        other = update(steps).where(steps.c.job_id == made[2]).values(action="github.Other")
        at.write(lambda c: c.execute(other).rowcount)
        (action,) = {row.action for row in console.rows(steps.select()) if row.action != "github.Other"}
        console.close()
    return [*made, action]


def window(action: str, since: str = "2026-01-02T08:00Z", until: str = "2026-01-02T12:00Z") -> tuple[str, ...]:
    return ("jobs", "resolve", "--no-effect", "--action", action, "--since", since, "--until", until)


def states(cli: Cli) -> dict[str, str]:
    return {row["id"]: row["state"] for row in cli.json("jobs", "list")}


def test_all_calls_of_an_action_between_two_times_are_settled_at_once(cli: Cli, in_doubt: list[str]) -> None:
    first, second, other, last, action = in_doubt
    preview = cli.json(*window(action, until="2026-01-02T10:30Z"), "--dry-run")
    assert [row["job_id"] for row in preview["would_resolve"]] == [first, second]
    assert set(states(cli).values()) == {"waiting"}
    assert "2 call(s)" in cli(*window(action, until="2026-01-02T10:30Z"), "--dry-run").output

    assert cli(*window(action)).exit_code == 2  # it asks first
    unseen = cli.json(*window(action), "--yes", "--count", "2", code=1)
    assert "there are 3 call(s)" in unseen["message"]
    assert set(states(cli).values()) == {"waiting"}
    settled = cli.json(*window(action, until="2026-01-02T10:30Z"), "--yes", "--count", "2")
    assert (len(settled["resolved"]), settled["left_out"]) == (2, [])
    assert states(cli) == {first: "queued", second: "queued", other: "waiting", last: "waiting"}
    told = cli.json("audit", "search", "--kind", "attempt.resolved")
    assert sorted(row["job_id"] for row in told) == sorted([first, second])
    assert "no call of" in cli.json(*window(action, until="2026-01-02T10:30Z"), "--dry-run", code=1)["message"]


def test_one_that_is_in_doubt_about_more_than_that_is_left_out_and_told(cli: Cli, in_doubt: list[str]) -> None:
    first, second, action = in_doubt[0], in_doubt[1], in_doubt[4]
    with Installation(load(data_dir=cli.data_dir)) as at:
        (row,) = at.read(lambda c: c.execute(attempts.select().where(attempts.c.job_id == first)).all())
        later = dict(row._mapping) | {"id": "later", "number": 2, "opened_at": EARLY + timedelta(days=9)}
        at.write(lambda c: c.execute(attempts.insert(), later).rowcount)
    told = cli.json(*window(action, until="2026-01-02T10:30Z"), "--yes", "--count", "2", code=1)
    assert len(told["resolved"]) == 1
    assert "about more than you named" in told["left_out"][0]
    assert (states(cli)[first], states(cli)[second]) == ("waiting", "queued")


def test_a_job_that_has_ended_stays_so_and_its_call_is_settled(cli: Cli, in_doubt: list[str]) -> None:
    first, action = in_doubt[0], in_doubt[4]
    with Installation(load(data_dir=cli.data_dir)) as at:
        dead = update(jobs).where(jobs.c.id == first).values(state=JobState.DEAD, wait=None, finished_at=at.now())
        at.write(lambda c: c.execute(dead).rowcount)
    assert len(cli.json(*window(action, until="2026-01-02T08:30Z"), "--yes", "--count", "1")["resolved"]) == 1
    assert states(cli)[first] == "dead"


@pytest.mark.parametrize(
    "said",
    [
        ("--no-effect",),
        ("--no-effect", "--action", "a", "--since", "2026-01-01"),
        ("--effect", "--action", "a", "--since", "2026-01-01", "--until", "2026-01-02"),
        ("job_1", "--no-effect", "--action", "a"),
        ("job_1", "--no-effect", "--dry-run"),
        ("job_1", "--no-effect", "--count", "1"),
        ("--no-effect", "--action", "a", "--since", "2026-01-01", "--until", "2026-01-02", "--yes"),
    ],
)
def test_what_is_meant_has_to_be_said(cli: Cli, said: tuple[str, ...]) -> None:
    assert cli("jobs", "resolve", *said).exit_code == 2


def test_nobody_can_have_looked_for_what_is_still_to_be_sent(cli: Cli, in_doubt: list[str]) -> None:
    ahead = f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%d}"
    assert "--until is in the future" in cli.json(*window(in_doubt[4], until=ahead), "--dry-run", code=1)["message"]
