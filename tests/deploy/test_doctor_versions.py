"""`aswhom doctor` finds what is too old, and a ledger whose file is not as we opened it."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator

import pytest

from deploy import disk_space
from deploy.checkup import ledger, machine, postgresql
from deploy.checkup.finding import Finding, State
from deploy.installation import Installation
from deploy.settings import load
from tests.deploy.conftest import Cli
from tests.servers.old_redis import redis_of_version


@pytest.fixture
def at(cli: Cli) -> Iterator[Installation]:
    with Installation(load(data_dir=cli.data_dir)) as opened:
        yield opened


def told(cli: Cli) -> list[tuple[str, str]]:
    """What it says of versions, and how they are."""
    found = cli.json("doctor", "--offline", code=1)["findings"]
    return [(one["state"], one["says"]) for one in found if one["what"] == "versions"]


def says_of(what: str, findings: Iterator[Finding]) -> list[tuple[State, str]]:
    return [(one.state, one.says) for one in findings if one.what == what]


def test_a_sqlite_that_is_too_old_is_found(at: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.34.1")
    ((state, says),) = says_of("versions", machine.versions(at))
    assert (state, "SQLite 3.34.1 is too old: use a Python that has 3.35 or later" in says) == (State.WRONG, True)


def test_a_redis_that_is_too_old_is_found(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with redis_of_version("6.0.16") as url:
        monkeypatch.setenv("ASWHOM_BROKER_URL", url)
        said = told(cli)
    assert ("wrong", "the Redis of broker speaks as Redis 6.0.16: use 6.2 or later") in said
    with redis_of_version("6.2.0") as url:
        monkeypatch.setenv("ASWHOM_BROKER_URL", url)
        assert [state for state, _ in told(cli)] == ["ok"]


class Instead:
    """An installation whose ledger answers what nobody's does here."""

    def __init__(self, at: Installation, answer: object) -> None:
        self.settings = at.settings
        self._answer = answer

    def read(self, _: object) -> object:
        return self._answer


@pytest.mark.parametrize(("number", "version", "found"), [("140012", "14.12", True), ("150000", "15.0", False)])
def test_a_postgresql_that_is_too_old_is_found(number: str, version: str, found: bool) -> None:
    server = {"server_version_num": number, "server_version": version, "max_connections": "1000"}
    server |= {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
    said = says_of("versions", postgresql._of_settings(server))
    asked = f"PostgreSQL {version} is not tested with this version: use 15 or later"
    assert said == ([(State.WRONG, asked)] if found else [])


@pytest.mark.parametrize(
    ("takes", "seen", "found"), [(95, 0, None), (94, 0, "on one host"), (95, 93, "on all hosts"), (96, 93, None)]
)
def test_a_server_that_takes_too_few_connections_for_what_is_started_is_found(
    takes: int, seen: int, found: str | None
) -> None:
    said = says_of("ledger", postgresql._of_connections(takes, kept=3, of_one=92, seen=seen))
    cure = f"set max_connections to {max(92, seen) + 20} or more, or ASWHOM_DATABASE_CONNECTIONS"
    assert [(found in says, cure in says) for _, says in said if found] == ([(True, True)] if found else [])
    assert len(said) == (found is not None)


def test_a_disk_that_does_not_say_what_is_free_is_no_good_news(
    at: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_space, "free", lambda _: math.nan)
    ((state, says),) = says_of("disk", machine.disk(at))
    assert (state, "cannot be read" in says) == (State.UNKNOWN, True)


def test_a_ledger_without_its_write_ahead_log_is_found(at: Installation) -> None:
    ((state, says),) = says_of("durability", ledger._of_file(Instead(at, "delete")))  # type: ignore[arg-type]
    assert (state, "journal_mode is delete" in says, "restart everything" in says) == (State.WRONG, True, True)
    assert says_of("durability", ledger._of_file(at)) == []
