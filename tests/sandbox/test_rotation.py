"""Refresh tokens rotate; one that comes back kills its family; every presentation is on record."""

import hashlib

import pytest

from tests.sandbox.driver import PATHS, Sandbox

VIEWER = "query { viewer { name } }"


def test_a_refresh_at_github_kills_the_old_access_token_too(sandbox: Sandbox) -> None:
    old = sandbox.connect("github", "ada")
    new = sandbox.refresh("github", old["refresh_token"]).json()
    assert sandbox.github("GET", "/user", old["access_token"]).status_code == 401
    assert sandbox.github("GET", "/user", new["access_token"]).json()["login"] == "ada"


def test_a_refresh_at_linear_leaves_the_old_access_token(sandbox: Sandbox) -> None:
    old = sandbox.connect("linear", "ada")
    new = sandbox.refresh("linear", old["refresh_token"]).json()
    for tokens in (old, new):
        assert sandbox.linear(tokens["access_token"], VIEWER).json() == {"data": {"viewer": {"name": "ada"}}}


@pytest.mark.parametrize(
    ("provider", "status", "error"), [("github", 200, "bad_refresh_token"), ("linear", 400, "invalid_grant")]
)
def test_an_old_refresh_token_kills_the_family(sandbox: Sandbox, provider: str, status: int, error: str) -> None:
    first = sandbox.connect(provider, "grace")
    second = sandbox.refresh(provider, first["refresh_token"]).json()
    reused = sandbox.refresh(provider, first["refresh_token"])
    assert (reused.status_code, reused.json()["error"]) == (status, error)
    assert sandbox.refresh(provider, second["refresh_token"]).json()["error"] == error
    if provider == "github":
        assert sandbox.github("GET", "/user", second["access_token"]).status_code == 401
    else:
        assert sandbox.linear(second["access_token"], VIEWER).status_code == 401


def test_another_family_of_the_same_user_survives(sandbox: Sandbox) -> None:
    first, other = sandbox.connect("github", "grace"), sandbox.connect("github", "grace")
    for _ in range(2):
        sandbox.refresh("github", first["refresh_token"])
    assert sandbox.github("GET", "/user", other["access_token"]).status_code == 200


def test_every_presentation_is_on_record(sandbox: Sandbox) -> None:
    before = len(sandbox.read("auth", "presentations"))
    tokens = sandbox.connect("github", "linus")
    sandbox.refresh("github", tokens["refresh_token"], **{"X-Aswhom-Refresh": "refresh-7"})
    sandbox.refresh("github", tokens["refresh_token"])
    seen = sandbox.read("auth", "presentations")[before:]
    assert [(row["kind"], row["outcome"]) for row in seen] == [
        ("authorization_code", "ok"),
        ("refresh_token", "ok"),
        ("refresh_token", "bad_refresh_token"),
    ]
    assert [row["seq"] for row in seen] == [before + 1, before + 2, before + 3]
    assert {row["user"] for row in seen} == {"linus"}
    assert len({row["grant"] for row in seen}) == 1
    assert seen[1]["fingerprint"] == hashlib.sha256(tokens["refresh_token"].encode()).hexdigest()
    assert [row["refresh"] for row in seen] == [None, "refresh-7", None]
    assert seen[0]["issued"] == hashlib.sha256(tokens["access_token"].encode()).hexdigest()
    assert seen[2]["issued"] is None


def test_a_wrong_client_secret_is_the_clients_fault(sandbox: Sandbox) -> None:
    tokens = sandbox.connect("linear", "ada")
    wrong = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], "client_secret": "wrong"}
    answer = sandbox.token("linear", wrong)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert sandbox.token("github", wrong).json()["error"] == "incorrect_client_credentials"
    assert sandbox.refresh("linear", tokens["refresh_token"]).status_code == 200


def test_a_client_may_authenticate_by_basic(sandbox: Sandbox) -> None:
    client, tokens = sandbox.client("linear"), sandbox.connect("linear", "ada")
    answer = sandbox.http.post(
        sandbox.url("auth", PATHS["linear"][1]),
        auth=(client["client_id"], client["client_secret"]),
        data={"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]},
    )
    assert answer.status_code == 200


def test_client_credentials_act_as_the_app_in_one_organization(sandbox: Sandbox) -> None:
    client = next(row for row in sandbox.world["auth"]["clients"] if row.get("tenant") == "globex")
    fields = {"grant_type": "client_credentials", "scope": "read,write", "client_id": client["client_id"]}
    answer = sandbox.token("linear", fields | {"client_secret": client["client_secret"]}).json()
    assert "refresh_token" not in answer
    viewer = sandbox.linear(answer["access_token"], "{ viewer { name app organization { urlKey } } }").json()
    assert viewer["data"]["viewer"] == {"name": "aswhom-sandbox", "app": True, "organization": {"urlKey": "globex"}}


def test_an_order_to_expire_ends_access_and_leaves_refresh(sandbox: Sandbox) -> None:
    tokens = sandbox.connect("github", "margaret")
    assert sandbox.order("auth", "expire", provider="github", user="margaret")["expired"] >= 1
    assert sandbox.github("GET", "/user", tokens["access_token"]).status_code == 401
    assert "access_token" in sandbox.refresh("github", tokens["refresh_token"]).json()


def test_an_order_to_revoke_ends_both(sandbox: Sandbox) -> None:
    tokens = sandbox.connect("linear", "linus")
    assert sandbox.order("auth", "revoke", provider="linear", user="linus")["revoked"] >= 1
    assert sandbox.linear(tokens["access_token"], VIEWER).status_code == 401
    assert sandbox.refresh("linear", tokens["refresh_token"]).json()["error"] == "invalid_grant"


def test_linear_revokes_by_either_token_and_says_when_there_was_nothing_to(sandbox: Sandbox) -> None:
    for kind in ("access_token", "refresh_token"):
        tokens = sandbox.connect("linear", "ada")
        answers = [
            sandbox.http.post(sandbox.url("auth", "/linear/oauth/revoke"), data={"token": tokens[kind]})
            for _ in range(2)
        ]
        assert [answer.status_code for answer in answers] == [200, 400]
        assert sandbox.linear(tokens["access_token"], VIEWER).status_code == 401


def test_introspection_needs_the_internal_key(sandbox: Sandbox) -> None:
    answer = sandbox.http.post(sandbox.url("auth", "/_sandbox/introspect"), json={"token": "x"})
    assert answer.status_code == 403
