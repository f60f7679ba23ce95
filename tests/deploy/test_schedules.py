"""`aswhom schedules`, and what `doctor` says of a beat that does not run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from deploy.installation import Installation
from deploy.settings import load
from pipeline.model import BEAT
from tests.deploy.conftest import Cli
from tests.heartbeats import ticked


@pytest.fixture
def acme(cli: Cli) -> Cli:
    cli.json("tenants", "add", "acme", "--name", "Acme")
    return cli


def add(cli: Cli, *more: str, name: str = "early", cron: str = "30 2 * * *", code: int = 0) -> dict[str, str]:
    said: dict[str, str] = cli.json(
        "schedules", "add", name, "--tenant", "acme", "--workflow", "daily_digest", "--cron", cron, *more, code=code
    )
    return said


def test_a_schedule_is_added_listed_paused_resumed_and_removed(acme: Cli) -> None:
    made = add(acme, "--zone", "Europe/Berlin", "--catch-up", "all", "--at-most", "3", "--jitter", "60")
    assert made["id"] == "acme:early"
    (row,) = acme.json("schedules", "list", "--tenant", "acme")
    assert (row["cron"], row["zone"], row["catch_up"], row["at_most"]) == ("30 2 * * *", "Europe/Berlin", "all", 3)
    assert row["next_at"] == made["next_at"]
    acme.json("schedules", "pause", "acme:early")
    assert acme.json("schedules", "list")[0]["paused"] is True
    assert acme.json("schedules", "resume", "acme:early")["next_at"] == made["next_at"]
    acme.json("schedules", "remove", "acme:early", "--yes")
    assert acme.json("schedules", "list") == []
    assert "there is no schedule acme:early" in acme.json("schedules", "pause", "acme:early", code=1)["message"]
    kinds = [row["kind"] for row in acme.json("audit", "search", "--kind", "schedule")]
    assert sorted(kinds) == ["schedule.added", "schedule.paused", "schedule.removed", "schedule.resumed"]


def test_the_coming_slots_are_shown_on_the_clocks_of_the_zone(acme: Cli) -> None:
    add(acme, "--zone", "Europe/Berlin")
    coming = acme.json("schedules", "next", "acme:early", "--count", "100")
    assert len(coming) == 100
    assert {row["slot"].split()[2] for row in coming} <= {"02:30", "03:00"}
    assert "02:30" in acme("schedules", "next", "acme:early").output


def test_a_schedule_of_a_workflow_that_is_off_says_that_its_slots_pass_unused(acme: Cli) -> None:
    said = acme("schedules", "add", "early", "--tenant", "acme", "--workflow", "daily_digest", "--cron", "0 9 * * *")
    assert "aswhom workflows enable daily_digest --tenant acme" in said.output


@pytest.mark.parametrize(
    ("cron", "more", "says"),
    [
        ("nonsense", (), "is no cron line"),
        ("0 9 * * *", ("--zone", "Mars/Olympus"), "is no time zone"),
    ],
)
def test_what_is_no_schedule_is_refused(acme: Cli, cron: str, more: tuple[str, ...], says: str) -> None:
    assert says in add(acme, *more, cron=cron, code=1)["message"]


@pytest.mark.parametrize("seconds", ["-1", "86401", "3000000000", "1000000000000000"])
def test_a_jitter_is_a_day_at_most(acme: Cli, seconds: str) -> None:
    options = ("--tenant", "acme", "--workflow", "daily_digest", "--cron", "0 9 * * *", "--jitter", seconds)
    said = acme("schedules", "add", "early", *options)
    assert (said.exit_code, "is not in the range 0<=x<=86400" in said.output) == (2, True)


def test_doctor_tells_of_a_beat_that_does_not_tick(acme: Cli) -> None:
    def says() -> list[tuple[str, str]]:
        findings = acme.json("doctor", "--offline", code=1)["findings"]
        return [(one["state"], one["says"]) for one in findings if one["what"] == "schedules"]

    def tick(at: datetime, error: str | None = None) -> None:
        with Installation(load(data_dir=acme.data_dir)) as installation:
            ticked(installation.ledger, BEAT, error=error, at=at)

    assert says() == []  # nobody misses it
    add(acme)
    assert says()[0][0] == "wrong"
    assert "no beat ever ticked" in says()[0][1]
    tick(datetime.now(UTC) - timedelta(hours=1))
    assert "nothing was looked at since" in says()[0][1]
    tick(datetime.now(UTC), "OperationalError")
    assert "OperationalError" in says()[0][1]
    tick(datetime.now(UTC))
    assert says() == [("ok", "1 are kept")]
