"""Faults strike what they were ordered for, as often as ordered, and the log says what happened."""

import hashlib
import time
from typing import Any

import httpx
import pytest

from tests.sandbox.driver import Sandbox
from tests.waiting import eventually


def comment(sandbox: Sandbox, token: str, number: int) -> httpx.Response:
    return sandbox.github("POST", f"/repos/acme/shop/issues/{number}/comments", token, json={"body": "x"})


def count(sandbox: Sandbox, token: str, number: int) -> int:
    return len(sandbox.github("GET", f"/repos/acme/shop/issues/{number}/comments", token).json())


def test_a_dropped_response_has_had_its_effect(sandbox: Sandbox) -> None:
    number, token = sandbox.open_pull()["number"], sandbox.installation_token()
    sandbox.order("github", "faults", endpoint="create_comment", mode="drop_response")
    with pytest.raises(httpx.RemoteProtocolError):
        comment(sandbox, token, number)
    last = sandbox.read("github", "log")[-1]
    assert (last["effect"], last["status"], last["fault"]) == (True, 201, "drop_response")
    assert count(sandbox, token, number) == 1


def test_a_dropped_request_has_not(sandbox: Sandbox) -> None:
    number, token = sandbox.open_pull()["number"], sandbox.installation_token()
    sandbox.order("github", "faults", endpoint="create_comment", mode="drop_request")
    with pytest.raises(httpx.RemoteProtocolError):
        comment(sandbox, token, number)
    last = sandbox.read("github", "log")[-1]
    assert (last["effect"], last["status"], last["fault"]) == (False, None, "drop_request")
    assert count(sandbox, token, number) == 0


def test_a_status_is_answered_the_number_of_times_ordered(sandbox: Sandbox) -> None:
    token = sandbox.installation_token()
    order = {"status": 503, "times": 2, "headers": {"Retry-After": "3"}}
    sandbox.order("github", "faults", endpoint="/repos/acme", mode="status", **order)
    answers = [sandbox.github("GET", "/repos/acme/shop", token) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert answers[0].headers["Retry-After"] == "3"


def test_a_request_that_a_fault_answers_was_made_with_its_token_all_the_same(sandbox: Sandbox) -> None:
    token = sandbox.installation_token()
    sandbox.order("github", "faults", mode="status")
    sandbox.github("GET", "/repos/acme/shop", token)
    last = sandbox.read("github", "log")[-1]
    assert (last["status"], last["token_fingerprint"]) == (503, hashlib.sha256(token.encode()).hexdigest())


def test_a_lost_answer_of_the_token_endpoint_has_rotated(sandbox: Sandbox) -> None:
    tokens = sandbox.connect("github", "ada")
    sandbox.order("auth", "faults", provider="github", endpoint="token", mode="drop_response")
    with pytest.raises(httpx.RemoteProtocolError):
        sandbox.refresh("github", tokens["refresh_token"])
    assert sandbox.read("auth", "presentations")[-1]["outcome"] == "ok"
    assert sandbox.refresh("github", tokens["refresh_token"]).json()["error"] == "bad_refresh_token"


def test_a_503_of_the_token_endpoint_has_not_rotated(sandbox: Sandbox) -> None:
    tokens = sandbox.connect("linear", "ada")
    sandbox.order("auth", "faults", provider="linear", endpoint="token", mode="status", status=503)
    assert sandbox.refresh("linear", tokens["refresh_token"]).status_code == 503
    assert sandbox.read("auth", "presentations")[-1]["outcome"] == "not_processed"
    assert sandbox.refresh("linear", tokens["refresh_token"]).status_code == 200


def test_a_fault_of_one_provider_spares_the_other(sandbox: Sandbox) -> None:
    linear, github = sandbox.connect("linear", "ada"), sandbox.connect("github", "ada")
    sandbox.order("auth", "faults", provider="linear", endpoint="token", mode="status", status=500)
    assert "access_token" in sandbox.refresh("github", github["refresh_token"]).json()
    assert sandbox.refresh("linear", linear["refresh_token"]).status_code == 500


def test_a_body_is_answered_instead_after_the_rotation_if_so_ordered(sandbox: Sandbox) -> None:
    tokens = sandbox.connect("linear", "ada")
    sandbox.order("auth", "faults", endpoint="token", mode="body", when="after", body="<html>oops</html>")
    assert sandbox.refresh("linear", tokens["refresh_token"]).text == "<html>oops</html>"
    assert sandbox.refresh("linear", tokens["refresh_token"]).json()["error"] == "invalid_grant"


def test_a_late_answer_has_had_its_effect_in_time(sandbox: Sandbox) -> None:
    tokens = sandbox.connect("linear", "grace")
    before = len(sandbox.read("auth", "presentations"))
    sandbox.order("auth", "faults", endpoint="token", mode="delay", seconds=5)
    with pytest.raises(httpx.ReadTimeout):
        sandbox.http.post(
            sandbox.url("auth", "/linear/oauth/token"),
            data={
                "grant_type": "refresh_token",
                "refresh_token": tokens["refresh_token"],
                "client_id": sandbox.client("linear")["client_id"],
                "client_secret": sandbox.client("linear")["client_secret"],
            },
            timeout=httpx.Timeout(60, read=0.2),
        )

    def presented() -> list[Any]:
        rows: list[Any] = sandbox.read("auth", "presentations")
        return rows[before:]

    eventually(presented, what="it was presented")
    assert [row["outcome"] for row in presented()] == ["ok"]


@pytest.mark.parametrize("mode", ["drip_headers", "drip_body", "delay"])
def test_a_slow_answer_is_slow_and_whole(sandbox: Sandbox, mode: str) -> None:
    token = sandbox.installation_token()
    sandbox.order("github", "faults", endpoint="get_repository", mode=mode, seconds=0.4)
    began = time.monotonic()
    answer = sandbox.github("GET", "/repos/acme/shop", token)
    assert answer.json()["full_name"] == "acme/shop"
    assert time.monotonic() - began >= 0.35


def test_a_linear_fault_is_ordered_by_operation(sandbox: Sandbox) -> None:
    token = sandbox.connect("linear", "ada")["access_token"]
    sandbox.order("linear", "faults", endpoint="viewer", mode="status", status=502)
    assert sandbox.linear(token, "{ organization { id } }").status_code == 200
    assert sandbox.linear(token, "{ viewer { id } }").status_code == 502


def test_a_fault_nobody_knows_is_refused(sandbox: Sandbox) -> None:
    for order in ({"mode": "explode"}, {"mode": "delay", "times": 0}, {"mode": "delay", "colour": "red"}):
        assert sandbox.http.post(sandbox.url("slack", "/_sandbox/faults"), json=order).status_code == 400


def test_cleared_faults_do_not_strike(sandbox: Sandbox) -> None:
    token = sandbox.installation_token()
    sandbox.order("github", "faults", mode="status", status=500, times=50)
    sandbox.http.delete(sandbox.url("github", "/_sandbox/faults"))
    assert sandbox.github("GET", "/repos/acme/shop", token).status_code == 200
