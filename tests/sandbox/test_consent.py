"""The code flow: consent page, PKCE, exact redirects, codes that work once."""

import httpx
import pytest

from tests.sandbox.driver import Form, Sandbox, s256


@pytest.mark.parametrize("provider", ["github", "linear"])
def test_consent_yields_a_code_and_the_state_unchanged(sandbox: Sandbox, provider: str) -> None:
    answer, verifier = sandbox.ask(provider, user="ada")
    back = httpx.URL(answer.headers["location"])
    assert answer.status_code == 302
    assert back.params["state"] == "st&te"
    assert str(back).startswith(sandbox.client(provider)["redirect_uris"][0])
    tokens = sandbox.redeem(provider, back.params["code"], verifier)
    assert tokens.status_code == 200
    assert tokens.json()["access_token"]


def test_github_answers_in_its_own_shape(sandbox: Sandbox) -> None:
    tokens = sandbox.connect("github", "ada")
    assert tokens.keys() == {
        *("access_token", "expires_in", "refresh_token", "refresh_token_expires_in", "scope", "token_type")
    }
    assert tokens["access_token"].startswith("ghu_")
    assert tokens["refresh_token"].startswith("ghr_")
    assert (tokens["expires_in"], tokens["refresh_token_expires_in"]) == (28800, 15811200)
    assert (tokens["scope"], tokens["token_type"]) == ("", "bearer")


def test_github_answers_form_encoded_unless_asked_for_json(sandbox: Sandbox) -> None:
    answer = sandbox.redeem("github", *sandbox.code("github", "ada"))
    plain = sandbox.refresh("github", answer.json()["refresh_token"], Accept="*/*")
    assert plain.headers["content-type"].startswith("application/x-www-form-urlencoded")
    assert "access_token=ghu_" in plain.text


def test_linear_answers_with_the_scopes_granted(sandbox: Sandbox) -> None:
    tokens = sandbox.connect("linear", "grace", scope="read,issues:create")
    assert tokens["scope"] == "read issues:create"
    assert tokens["token_type"] == "Bearer"


def test_the_page_offers_every_person_and_both_decisions(sandbox: Sandbox) -> None:
    client = sandbox.client("github")
    fields = {"client_id": client["client_id"], "redirect_uri": client["redirect_uris"][0]}
    pkce = {"code_challenge": s256("v" * 43), "code_challenge_method": "S256"}
    page = Form(sandbox.http.get(sandbox.url("auth", "/github/login/oauth/authorize"), params=fields | pkce).text)
    assert page.users == ["ada", "grace", "linus", "margaret", "barbara", "edsger"]
    assert page.decisions == ["allow", "deny"]


def test_saying_no_sends_access_denied(sandbox: Sandbox) -> None:
    answer, _ = sandbox.ask("linear", user="ada", decision="deny")
    back = httpx.URL(answer.headers["location"])
    assert (back.params["error"], back.params["state"]) == ("access_denied", "st&te")
    assert "code" not in back.params


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uri": "http://127.0.0.1:1/back/github/"},
        {"redirect_uri": "http://evil.example/"},
        {"client_id": "no"},
    ],
)
def test_what_cannot_be_trusted_is_not_redirected(sandbox: Sandbox, changes: dict[str, str]) -> None:
    answer, _ = sandbox.ask("github", user="ada", **changes)
    assert answer.status_code == 400
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"scope": "admin"}, "invalid_scope"),
        ({"response_type": "token"}, "unsupported_response_type"),
    ],
)
def test_the_client_is_told_what_is_wrong(sandbox: Sandbox, changes: dict[str, str], error: str) -> None:
    answer, _ = sandbox.ask("linear", user="ada", **changes)
    assert httpx.URL(answer.headers["location"]).params["error"] == error


def test_a_wrong_verifier_is_refused(sandbox: Sandbox) -> None:
    code, _ = sandbox.code("linear", "ada")
    answer = sandbox.redeem("linear", code, "x" * 43)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


def test_another_redirect_uri_is_refused(sandbox: Sandbox) -> None:
    code, verifier = sandbox.code("linear", "ada")
    answer = sandbox.redeem("linear", code, verifier, redirect_uri="http://127.0.0.1:1/other")
    assert answer.json()["error"] == "invalid_grant"


def test_a_code_used_twice_kills_what_it_gave(sandbox: Sandbox) -> None:
    code, verifier = sandbox.code("github", "grace")
    tokens = sandbox.redeem("github", code, verifier).json()
    assert sandbox.github("GET", "/user", tokens["access_token"]).status_code == 200
    again = sandbox.redeem("github", code, verifier)
    assert (again.status_code, again.json()["error"]) == (200, "bad_verification_code")
    assert sandbox.github("GET", "/user", tokens["access_token"]).status_code == 401
