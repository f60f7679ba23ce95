"""Whether the console is served, and to whom: settings, and `aswhom console`."""

from __future__ import annotations

import os
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from deploy.console import is_served, sign_in_of, way_in
from deploy.installation import Installation
from deploy.settings import load
from identity.console.sessions import use_link
from identity.errors import Misconfigured
from identity.secret import Secret
from tests.deploy.conftest import Cli
from tests.docs.pages import ROOT

PROVIDER = {
    "ASWHOM_CONSOLE_ISSUER": "https://accounts.example",
    "ASWHOM_CONSOLE_CLIENT_ID": "aswhom",
    "ASWHOM_CONSOLE_CLIENT_SECRET": "canary-of-the-console",
}


def _set(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("listen", "base_url", "served"),
    [
        ("127.0.0.1:8080", None, True),
        ("[::1]:8080", None, True),
        ("localhost:8080", "http://localhost:8080", True),
        ("0.0.0.0:8080", None, False),
        ("192.0.2.1:8080", "http://localhost:8080", False),
        ("127.0.0.1:8080", "https://aswhom.example", False),  # behind a proxy
    ],
)
def test_without_sign_in_it_is_served_to_this_machine_alone(
    monkeypatch: pytest.MonkeyPatch, listen: str, base_url: str | None, served: bool
) -> None:
    _set(monkeypatch, ASWHOM_LISTEN=listen, ASWHOM_ALLOW_HTTP="true")
    if base_url:
        _set(monkeypatch, ASWHOM_BASE_URL=base_url)
    assert is_served(load()) is served
    monkeypatch.setenv("ASWHOM_CONSOLE", "true")
    if served:
        assert is_served(load())
    else:
        with pytest.raises(Misconfigured, match="ASWHOM_CONSOLE_ISSUER"):
            load()


def test_with_sign_in_it_is_served_anywhere_and_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, ASWHOM_LISTEN="0.0.0.0:8080", ASWHOM_BASE_URL="https://aswhom.example", **PROVIDER)
    provider = sign_in_of(load())
    assert is_served(load())
    assert provider is not None
    assert provider.redirect_uri == "https://aswhom.example/console/callback"
    assert "canary" not in repr(provider)
    monkeypatch.setenv("ASWHOM_CONSOLE", "false")
    assert not is_served(load())


@pytest.mark.parametrize("missing", PROVIDER)
def test_half_a_registration_is_a_fault(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    _set(monkeypatch, **{name: value for name, value in PROVIDER.items() if name != missing})
    with pytest.raises(Misconfigured, match=missing):
        load()


def test_a_link_is_printed_and_roles_are_given_and_taken_back(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    url = urlsplit(cli.json("console", "link")["url"])
    assert (url.netloc, url.path.rpartition("/")[0]) == ("127.0.0.1:8080", "/console/link")
    given = cli.json("console", "allow", "owner", "--value", "grace@acme.example")
    assert "has that role already" in cli("console", "allow", "owner", "--value", "grace@acme.example").output
    assert (
        "there is no tenant nowhere" in cli("console", "allow", "owner", "--value", "x", "--tenant", "nowhere").output
    )
    (row,) = cli.json("console", "roles")
    assert (row["id"], row["claim"], row["role"], row["tenant_id"]) == (given["id"], "email", "owner", None)
    assert cli.json("console", "disallow", given["id"], "--yes")["sessions"] == 0
    assert cli.json("console", "roles") == []
    assert cli.json("console", "sessions") == []
    assert "nobody is signed in as 00u1" in cli("console", "sign-out", "--subject", "00u1", "--yes").output
    made_by = row["made_by"]
    signed_out = cli.json("console", "sign-out", "--subject", made_by, "--yes")
    assert signed_out == {"subject": made_by, "sessions": 0, "links": 1}, "who is put out comes in by none of theirs"
    with Installation(load(data_dir=cli.data_dir)) as at:
        token = Secret(url.path.rpartition("/")[2])
        assert at.write(lambda c: use_link(c, token, now=at.now())) is None
    assert cli.json("console", "sign-out", "--yes") == {"sessions": 0}
    _set(monkeypatch, ASWHOM_LISTEN="0.0.0.0:8080", ASWHOM_ALLOW_HTTP="true")
    refused = cli("console", "link")
    assert refused.exit_code == 1
    assert "no console is served" in refused.output


@pytest.mark.parametrize(("listen", "status"), [("127.0.0.1:8080", 303), ("0.0.0.0:8080", 404)])
def test_the_web_itself_has_no_console_where_anybody_could_walk_in(cli: Cli, listen: str, status: int) -> None:
    asks = "from deploy.wsgi import app; print(app.test_client().get('/console/').status_code)"
    environment = {**os.environ, "ASWHOM_DATA_DIR": str(cli.data_dir), "ASWHOM_LISTEN": listen, "PYTHONPATH": str(ROOT)}
    environment["ASWHOM_ALLOW_HTTP"] = "true"
    asked = subprocess.run([sys.executable, "-c", asks], env=environment, capture_output=True, text=True, check=False)
    assert asked.stdout.strip().splitlines()[-1:] == [str(status)], asked.stderr


def test_a_link_that_signs_in_is_said_at_a_terminal_and_into_no_log(cli: Cli) -> None:
    settings = load(data_dir=cli.data_dir)
    said = way_in(settings, unrecorded=True)
    assert said is not None
    assert f"{settings.base_url}/console/link/" in said
    logged = way_in(settings, unrecorded=False)
    assert (
        logged
        == f"the console is at {settings.base_url}/console/; `aswhom console link` prints a link that signs you in"
    )


@pytest.mark.parametrize(
    "variables",
    [
        {"ASWHOM_BASE_URL": "http://aswhom.bank.example"},
        {"ASWHOM_BASE_URL": "http://localhost.bank.example"},
        {"ASWHOM_LISTEN": "192.0.2.1:8080"},  # whose address follows from where it listens
        {"ASWHOM_LISTEN": "0.0.0.0:8080"},
        {"ASWHOM_LISTEN": "192.0.2.1:8080", "ASWHOM_BASE_URL": "http://localhost:8080"},
    ],
    ids=str,
)
def test_others_do_not_reach_it_unencrypted_unless_it_is_a_lab(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    _set(monkeypatch, **variables, **PROVIDER)
    with pytest.raises(Misconfigured, match=r"ASWHOM_BASE_URL is http://.*unencrypted.*ASWHOM_ALLOW_HTTP=true"):
        load()
    monkeypatch.setenv("ASWHOM_ALLOW_HTTP", "true")
    assert is_served(load())


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://[::1]:8080", "http://localhost", "https://a.example"])
def test_this_machine_and_tls_need_no_leave(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("ASWHOM_BASE_URL", url)
    assert load().base_url == url
