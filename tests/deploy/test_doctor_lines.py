"""What doctor says of the lines to other hosts, and of the hosts that are left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update

from deploy.checkup import lines
from deploy.checkup.finding import State
from deploy.installation import Installation
from deploy.settings import load
from identity.tables import provider_connections
from pipeline.database import DatabaseSettings, open_database
from tests.deploy.conftest import Cli, told
from tests.servers.postgres import Postgres


@pytest.mark.parametrize(
    ("mode", "encrypted", "state", "says"),
    [
        ("verify-full", True, State.OK, "proves who it is"),
        ("verify-ca", True, State.UNKNOWN, "any server whose certificate its authority made"),
        ("require", True, State.UNKNOWN, "nobody verifies that it is db.example"),
        ("prefer", True, State.UNKNOWN, "nobody verifies that it is db.example"),
        ("prefer", False, State.WRONG, "is in clear text"),
        ("allow", False, State.WRONG, "is in clear text"),
        ("disable", False, State.UNKNOWN, "sslmode=disable says that nobody else is"),
    ],
)
def test_a_line_to_the_ledger_is_told_of_as_it_is(mode: str, encrypted: bool, state: State, says: str) -> None:
    found = lines.of_ledger(["db.example"], mode, encrypted=encrypted)
    assert (found.what, found.state, says in found.says) == ("tls", state, True)
    assert ("sslmode=verify-full" in found.says) is (state is not State.OK)


def test_the_server_says_whether_a_connection_is_encrypted(postgres: Postgres) -> None:
    database = open_database(DatabaseSettings(url=postgres.url()))
    try:
        assert database.read(lines.is_encrypted) is False  # through a socket
    finally:
        database.close()


def test_a_ledger_on_this_host_has_no_line(cli: Cli) -> None:
    assert told(cli, "tls") == []


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("redis://:hunter2@valkey:6379/0", ["valkey"]),
        ("amqp://u:hunter2@a//;amqps://u:hunter2@b//", ["a"]),
        ("rediss://valkey:6379/0", []),
        ("redis://127.0.0.1:6379/0", []),
        ("redis+socket:///run/v.sock", []),
    ],
)
def test_a_broker_on_another_host_is_spoken_to_in_clear_text(url: str, hosts: list[str]) -> None:
    assert lines.in_clear(url) == hosts


def test_doctor_says_that_a_redis_is_spoken_to_in_clear_text_and_not_its_password(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASWHOM_REDIS_URL", "redis://:hunter2@valkey.invalid:6379/0")
    found = told(cli, "locks")
    assert ("unknown", True) in [(state, "valkey.invalid is in clear text" in says) for state, says in found]
    assert "hunter2" not in str(found)


def test_a_connection_that_leads_where_nothing_may_go_is_found(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where somebody has written to the ledger, past the command line."""
    secret = tmp_path / "secret"
    secret.write_text("hunter2-hunter2\n")
    cli.json("connections", "add", "linear", "--client-id", "c", "--client-secret-file", str(secret))
    monkeypatch.setenv("ASWHOM_EGRESS_HOSTS", "api.linear.app")
    assert told(cli, "egress") == []
    moved = update(provider_connections).values(token_url="https://attacker.example/t")
    with Installation(load(data_dir=cli.data_dir)) as at:
        at.write(lambda c: c.execute(moved))
    ((state, says),) = told(cli, "egress")
    assert (state, "linear leads to attacker.example" in says) == ("wrong", True)


@pytest.mark.parametrize("allowed", ["git.internal", "git.internal,http://git.internal:53371"])
def test_an_address_that_is_refused_by_its_form_is_named_with_what_to_write_and_asked_by_nobody(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    """Of an API too, and whether or not anybody is to be asked."""
    cli.json("connections", "add", "linear", "--client-id", "c", "--client-secret-file", "-", input="hunter2-hunter2")
    moved = update(provider_connections).values(
        api_url="http://git.internal:53371/graphql", token_url="http://git.internal:51127/token"
    )
    with Installation(load(data_dir=cli.data_dir)) as at:
        at.write(lambda c: c.execute(moved))
    monkeypatch.setenv("ASWHOM_ALLOW_HOSTS", allowed)
    for options in (("--offline",), ("--json",)):
        found = dict.fromkeys(told(cli, "addresses", *options))
        assert {state for state, _ in found} == {"wrong"}
        wanted = [51127] if "53371" in allowed else [53371, 51127]
        assert [
            f"add http://git.internal:{port} to ASWHOM_ALLOW_HOSTS" in says
            for port, (_, says) in zip(wanted, found, strict=True)
        ] == [True] * len(wanted)
        assert all(says.startswith("linear leads to http://git.internal:") for _, says in found)
    assert told(cli, "reachability", "--json") == []
