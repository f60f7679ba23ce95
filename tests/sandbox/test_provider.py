"""The provider that misbehaves: a process of its own, its options, and what a case is made of."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from deploy.cli import main
from deploy.sandbox.provider.cases import CASES
from tests.failure_cases.provider import COMMAND, Provider, running
from tests.waiting import PATIENCE


@pytest.fixture(scope="module")
def _provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with running(tmp_path_factory.mktemp("provider"), "--case", "29", "--client-id", "client") as provider:
        yield provider


@pytest.fixture
def provider(_provider: Provider) -> Provider:
    """One that behaves, until it is told otherwise."""
    _provider.play(29)
    return _provider


def refresh(provider: Provider, token: str) -> httpx.Response:
    return provider.token(grant_type="refresh_token", refresh_token=token)


def test_a_token_works_once_and_its_second_presentation_ends_the_grant(provider: Provider) -> None:
    first = provider.consent("read", "write").json()
    assert (first["scope"], first["expires_in"]) == ("read write", 3600)
    second = refresh(provider, first["refresh_token"]).json()
    assert provider.takes(second["access_token"])
    assert refresh(provider, first["refresh_token"]).json()["error"] == "invalid_grant"
    assert not provider.takes(second["access_token"])
    assert refresh(provider, second["refresh_token"]).status_code == 400
    assert provider.outcomes() == ["ok", "invalid_grant", "invalid_grant"]


def test_inside_a_grace_window_it_works_again(provider: Provider) -> None:
    provider.play(29, grace=60)
    token = provider.consent("read").json()["refresh_token"]
    assert [refresh(provider, token).status_code for _ in range(3)] == [200] * 3


def test_time_passes_when_it_is_told_to_and_a_case_begins_in_the_present(provider: Provider) -> None:
    provider.play(12)
    idle, used = (provider.consent("read").json()["refresh_token"] for _ in range(2))
    provider.wait(timedelta(days=50))
    assert refresh_lost(provider, used)
    provider.wait(timedelta(days=41))
    assert refresh(provider, idle).json()["error"] == "invalid_grant"
    provider.play(12)
    assert refresh_lost(provider, provider.consent("read").json()["refresh_token"])
    assert provider.http.post("/_sandbox/clock", json={"days": 1}).status_code == 400


def refresh_lost(provider: Provider, token: str) -> bool:
    """Whether it rotated; the case's first answer does not come."""
    with pytest.raises(httpx.HTTPError):
        refresh(provider, token)
    return provider.outcomes()[-1] == "ok"


def test_a_provider_that_does_not_rotate_sends_no_new_token(provider: Provider) -> None:
    provider.play(29, rotates=False, lifetime=60)
    token = provider.consent("read").json()["refresh_token"]
    for _ in range(2):
        answer = refresh(provider, token).json()
        assert "refresh_token" not in answer
        assert answer["expires_in"] == 60


def test_an_answer_can_be_cut_in_the_middle(provider: Provider) -> None:
    token = provider.consent("read").json()["refresh_token"]
    provider.http.post("/_sandbox/faults", json={"mode": "cut_body", "endpoint": "refresh_token"}).raise_for_status()
    with pytest.raises(httpx.RemoteProtocolError):
        refresh(provider, token)
    assert provider.outcomes() == ["ok"]


def test_a_case_begins_anew_and_knows_nothing_of_before(provider: Provider) -> None:
    token = provider.consent("read").json()["access_token"]
    provider.play(29)
    assert not provider.takes(token)
    assert provider.presentations("authorization_code") == []


@pytest.mark.parametrize("order", [{}, {"case": 31}, {"case": "1"}, {"case": 1, "speed": 3}, [1]], ids=str)
def test_an_order_that_makes_no_sense_changes_nothing(provider: Provider, order: object) -> None:
    answer = provider.http.put("/_sandbox/case", json=order)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert provider.http.get("/_sandbox/case").json()["case"] == 29


def test_a_case_without_signals_says_so(provider: Provider) -> None:
    answer = provider.http.post("/_sandbox/signals", json={})
    assert (answer.status_code, answer.json()["error"]) == (404, "case 29 sends no signal")


@pytest.mark.parametrize("number", CASES)
def test_every_case_lets_a_person_consent_and_says_what_it_is(provider: Provider, number: int) -> None:
    provider.play(number, seconds=0)
    answer = provider.consent("read")
    assert answer.status_code == 200
    assert provider.http.get("/_sandbox/case").json()["name"] == CASES[number].name


def test_the_process_says_where_it_listens_writes_a_log_without_secrets_and_ends_when_told(tmp_path: Path) -> None:
    secret, log = tmp_path / "secret", tmp_path / "log"
    secret.write_text("client-canary\n")
    options = ("--case", "10", "--client-secret-file", str(secret), "--log", str(log), "--seconds", "0")
    with running(tmp_path, *options) as provider:
        assert provider.facts["name"] == CASES[10].name
        tokens = provider.consent("read").json()
        assert refresh(provider, tokens["refresh_token"]).status_code == 504
        refused = provider.http.post("/token", data={"client_id": "client", "client_secret": "wrong"})
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    lines = log.read_text()
    assert {json.loads(line)["log"] for line in lines.splitlines()} == {"request", "presentation"}
    for canary in ("client-canary", tokens["access_token"], tokens["refresh_token"]):
        assert canary not in lines


def test_a_port_that_is_taken_is_named(provider: Provider) -> None:
    port = str(httpx.URL(provider.url).port)
    command = [*COMMAND, "--case", "1", "--port", port]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ran.returncode == 1
    assert f"port {port} cannot be listened on" in ran.stderr


def test_the_list_has_every_case_and_another_number_is_misuse() -> None:
    listed = json.loads(CliRunner().invoke(main, ["sandbox", "list", "--json"]).output)
    assert [row["case"] for row in listed] == list(range(1, 31))
    assert CliRunner().invoke(main, ["sandbox", "provider", "--case", "31"]).exit_code == 2
