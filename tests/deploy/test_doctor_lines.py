"""What doctor says of the lines to other hosts, and of the hosts that are left out."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from deploy.checkup import egress, lines
from deploy.checkup.addresses import Leads
from deploy.checkup.finding import State
from deploy.installation import Installation
from deploy.settings import load
from identity.agents.tables import api_keys
from identity.errors import Misconfigured
from identity.http.client import Answer, Client
from identity.tables import connection_secrets, provider_connections
from pipeline.db.database import DatabaseSettings, open_database
from tests.deploy.conftest import Cli, told
from tests.servers.postgres import Postgres


def test_of_very_many_hosts_that_are_left_out_it_says_how_many_more_there_are() -> None:
    leads = [Leads(whose=f"c-{number}", url=f"https://h{number}.example") for number in range(23)]
    *named, last = egress.hosts_left_out(load(egress_hosts="elsewhere.example"), leads)
    of_these = [says for says in named if "c-" in says]
    assert len(of_these) == 20
    assert last.endswith(" more are left out")


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


def test_every_host_that_is_called_is_looked_for_not_the_rows_addresses_alone(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose token it is, answers to a chat, and the keys of workloads."""
    secret = tmp_path / "secret"
    secret.write_text("hunter2-hunter2\n")
    cli.json("connections", "add", "google", "--client-id", "c", "--client-secret-file", str(secret))
    cli.json("connections", "add", "slack", "--client-id", "c", "--webhook-secret-file", str(secret))
    cli.json("tenants", "add", "acme")
    trusted = ("--issuer", "https://i.example", "--audience", "us", "--subject", "s", "--jwks-url")
    cli.json("api-keys", "trust", "--tenant", "acme", "--agent", "robot", *trusted, "https://jwks.example/k")
    known = "www.googleapis.com,oauth2.googleapis.com,slack.com"
    monkeypatch.setenv("ASWHOM_EGRESS_HOSTS", known)
    *found, (state, says) = told(cli, "egress")
    leads = [says.partition(" leads to ")[2].partition(",")[0] for _, says in found]
    assert leads == ["openidconnect.googleapis.com", "jwks.example"]
    assert (state, "slack's provider takes answers to commands and buttons at hooks.slack.com" in says) == (
        "unknown",
        True,
    ), "it may be that nobody uses any, and nobody has changed anything"
    monkeypatch.setenv("ASWHOM_EGRESS_HOSTS", ",".join([known, *leads, "hooks.slack.com"]))
    assert told(cli, "egress") == []
    monkeypatch.setenv("ASWHOM_EGRESS_HOSTS", f"{known},{leads[0]}")
    past = datetime.now(UTC) - timedelta(days=1)
    with Installation(load(data_dir=cli.data_dir)) as at:
        at.write(lambda c: c.execute(update(api_keys).values(expires_at=past)).rowcount)
        at.write(lambda c: c.execute(update(connection_secrets).values(retired_at=past)).rowcount)
    assert told(cli, "egress") == [], "nothing leads there any more"


@pytest.mark.parametrize("host", ["a.example", "else.example"])
def test_where_the_issuer_of_the_consoles_sign_in_leads_is_asked(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    for name, value in {"ISSUER": "https://a.example", "CLIENT_ID": "aswhom", "CLIENT_SECRET": "canary"}.items():
        monkeypatch.setenv(f"ASWHOM_CONSOLE_{name}", value)
    monkeypatch.setenv("ASWHOM_EGRESS_HOSTS", "a.example")
    said = {
        "issuer": "https://a.example",
        "authorization_endpoint": "https://a.example/a",
        "token_endpoint": f"https://{host}/t",
        "response_types_supported": ["code"],
    }
    answer = Answer(status=200, headers={}, body=json.dumps(said).encode(), elapsed=timedelta())
    monkeypatch.setattr(Client, "send", lambda *_, **__: answer)
    with Installation(load(data_dir=cli.data_dir)) as at:
        if host == "a.example":
            assert [one.state for one in egress.sign_in(at)] == ["ok"]
        else:
            with pytest.raises(Misconfigured, match=r"else\.example is not among the hosts"):
                list(egress.sign_in(at))


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
