"""What each kind of GitHub credential may see and do."""

import time
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.sandbox.driver import Sandbox

BAD = {"message": "Bad credentials", "documentation_url": "https://docs.github.com/rest", "status": "401"}


@pytest.mark.parametrize("token", ["ghu_unknown", "ghs_unknown", "anything"])
def test_an_unknown_token_is_bad_credentials(sandbox: Sandbox, token: str) -> None:
    answer = sandbox.github("GET", "/repos/acme/shop", token)
    assert (answer.status_code, answer.json()) == (401, BAD)


def test_no_token_requires_authentication(sandbox: Sandbox) -> None:
    assert sandbox.github("GET", "/repos/acme/shop", None).status_code == 401


def test_a_user_sees_her_tenant_alone(sandbox: Sandbox) -> None:
    token = sandbox.connect("github", "ada")["access_token"]
    assert sandbox.github("GET", "/repos/acme/shop", token).status_code == 200
    assert sandbox.github("GET", "/repos/globex/site", token).status_code == 404
    rows = sandbox.github("GET", "/user/installations", token).json()["installations"]
    assert [row["account"]["login"] for row in rows] == ["acme"]


def test_an_installation_sees_its_repositories_alone(sandbox: Sandbox) -> None:
    token = sandbox.installation_token(9002)
    rows = sandbox.github("GET", "/installation/repositories", token).json()["repositories"]
    assert [row["full_name"] for row in rows] == ["globex/site"]
    assert sandbox.github("GET", "/repos/acme/shop", token).status_code == 404
    assert sandbox.github("GET", "/user", token).status_code == 403


def test_a_narrowed_token_is_narrow(sandbox: Sandbox) -> None:
    number = sandbox.open_pull()["number"]
    token = sandbox.installation_token(repositories=["shop"], permissions={"pull_requests": "read"})
    assert sandbox.github("GET", f"/repos/acme/shop/pulls/{number}", token).status_code == 200
    assert sandbox.github("GET", "/repos/acme/infra", token).status_code == 404
    refused = sandbox.github("POST", f"/repos/acme/shop/issues/{number}/comments", token, json={"body": "no"})
    assert (refused.status_code, refused.json()["message"]) == (403, "Resource not accessible by integration")


@pytest.mark.parametrize(("wanted", "named"), [({"repositories": ["shop"]}, ["acme/shop"]), ({}, None)])
def test_a_narrowed_tokens_answer_names_its_repositories_and_another_none(
    sandbox: Sandbox, wanted: dict[str, Any], named: list[str] | None
) -> None:
    answer = sandbox.github("POST", "/app/installations/9001/access_tokens", sandbox.app_jwt(), json=wanted).json()
    assert (answer.get("repositories") and [row["full_name"] for row in answer["repositories"]]) == named


@pytest.mark.parametrize(
    "wanted",
    [{"permissions": {"contents": "write"}}, {"permissions": {"administration": "read"}}, {"repositories": ["site"]}],
)
def test_a_token_cannot_be_wider_than_its_installation(sandbox: Sandbox, wanted: dict[str, Any]) -> None:
    answer = sandbox.github("POST", "/app/installations/9001/access_tokens", sandbox.app_jwt(), json=wanted)
    assert answer.status_code == 422


@pytest.mark.parametrize(
    "claims", [{"exp": int(time.time()) + 86_400}, {"exp": int(time.time()) - 1}, {"iss": 1}, {"exp": None}]
)
def test_a_wrong_app_token_is_refused(sandbox: Sandbox, claims: dict[str, Any]) -> None:
    assert sandbox.github("GET", "/app", sandbox.app_jwt(**claims)).status_code == 401


def test_an_app_token_signed_by_another_key_is_refused(sandbox: Sandbox) -> None:
    claims = {"iss": sandbox.world["github"]["app_id"], "exp": int(time.time()) + 60}
    forged = jwt.encode({"alg": "RS256"}, claims, RSAKey.generate_key(2048))
    assert sandbox.github("GET", "/app", forged).status_code == 401
    assert sandbox.github("GET", "/app", sandbox.app_jwt()).json()["slug"] == "aswhom-sandbox"


def test_a_revoked_installation_token_is_dead(sandbox: Sandbox) -> None:
    token = sandbox.installation_token()
    assert sandbox.github("DELETE", "/installation/token", token).status_code == 204
    assert sandbox.github("GET", "/repos/acme/shop", token).status_code == 401


def test_an_expired_installation_token_is_dead(sandbox: Sandbox) -> None:
    token = sandbox.installation_token(9002)
    sandbox.order("github", "installations/9002/expire_tokens")
    assert sandbox.github("GET", "/repos/globex/site", token).status_code == 401


def test_suspension_is_a_403_and_reversible(sandbox: Sandbox) -> None:
    token = sandbox.installation_token(9002)
    sandbox.order("github", "installations/9002/suspend")
    assert sandbox.github("GET", "/repos/globex/site", token).status_code == 403
    minted = sandbox.github("POST", "/app/installations/9002/access_tokens", sandbox.app_jwt())
    assert (minted.status_code, minted.json()["message"]) == (403, "This installation has been suspended")
    sandbox.order("github", "installations/9002/unsuspend")
    assert sandbox.github("GET", "/repos/globex/site", token).status_code == 200


def test_who_wrote_a_comment_is_who_held_the_token(sandbox: Sandbox) -> None:
    number = sandbox.open_pull()["number"]
    comments = f"/repos/acme/shop/issues/{number}/comments"
    for token in (sandbox.connect("github", "ada")["access_token"], sandbox.installation_token()):
        assert sandbox.github("POST", comments, token, json={"body": "Tracked"}).status_code == 201
    ada, bot = sandbox.github("GET", comments, sandbox.installation_token()).json()
    assert (ada["user"]["login"], ada["user"]["type"]) == ("ada", "User")
    assert (bot["user"]["login"], bot["user"]["type"]) == ("aswhom-sandbox[bot]", "Bot")
    assert ada["performed_via_github_app"]["slug"] == bot["performed_via_github_app"]["slug"] == "aswhom-sandbox"


def test_comments_come_a_page_at_a_time(sandbox: Sandbox) -> None:
    number, token = sandbox.open_pull()["number"], sandbox.installation_token()
    comments = f"/repos/acme/shop/issues/{number}/comments"
    for text in "abc":
        sandbox.github("POST", comments, token, json={"body": text})
    first = sandbox.github("GET", comments, token, params={"per_page": 2})
    assert [row["body"] for row in first.json()] == ["a", "b"]
    rest = sandbox.http.get(first.links["next"]["url"], headers={"Authorization": f"Bearer {token}"})
    assert [row["body"] for row in rest.json()] == ["c"]
    assert "next" not in rest.links


def test_a_list_is_ordered_and_begins_where_asked(sandbox: Sandbox) -> None:
    token, one, other = sandbox.installation_token(), *(sandbox.open_pull("acme/infra")["number"] for _ in range(2))

    def numbers(path: str, **asked: str) -> list[int]:
        return [row["number"] for row in sandbox.github("GET", f"/repos/acme/infra/{path}", token, params=asked).json()]

    assert numbers("pulls")[:2] == [other, one]
    assert numbers("pulls", direction="asc", sort="created")[-2:] == [one, other]
    assert numbers("pulls", state="closed") == []
    assert numbers("issues", since="2020-01-01T00:00:00Z", state="all")[:2] == [other, one]
    assert numbers("issues", since="2999-01-01T00:00:00Z", state="all") == []
    comments = f"issues/{one}/comments"
    sandbox.github("POST", f"/repos/acme/infra/{comments}", token, json={"body": "x"})
    assert len(sandbox.github("GET", f"/repos/acme/infra/{comments}", token).json()) == 1
    assert numbers(comments, since="2999-01-01T00:00:00Z") == []


def test_a_marker_is_found_by_search_by_those_who_may_see_it(sandbox: Sandbox) -> None:
    token, marker = sandbox.installation_token(), "aswhom-attempt 5d3c"
    made = sandbox.github("POST", "/repos/acme/shop/issues", token, json={"title": "t", "body": f"<!-- {marker} -->"})

    def found(bearer: str, query: str) -> list[int]:
        answer = sandbox.github("GET", "/search/issues", bearer, params={"q": query})
        return [row["number"] for row in answer.json()["items"]]

    assert found(token, f'repo:acme/shop is:issue in:body "{marker}"') == [made.json()["number"]]
    assert found(token, f'in:title "{marker}"') == []
    assert found(sandbox.installation_token(9002), f'in:body "{marker}"') == []


def test_a_client_may_check_and_end_what_it_was_given(sandbox: Sandbox) -> None:
    ask, of_client = sandbox.application, sandbox.world["github"]["client_id"]
    one, other = (sandbox.connect("github", "grace")["access_token"] for _ in range(2))
    assert ask("POST", "token", one) == 200
    assert ask("DELETE", "token", one) == 204
    assert ask("POST", "token", one) == 404
    assert sandbox.github("GET", "/user", other).status_code == 200
    assert ask("DELETE", "grant", other) == 204
    assert sandbox.github("GET", "/user", other).status_code == 401
    assert ask("DELETE", "grant", other) == 422
    assert (
        sandbox.github("POST", f"/applications/{of_client}/token", None, json={"access_token": other}).status_code
        == 401
    )


def test_whoever_holds_a_refresh_token_may_end_it_and_nobody_by_name(sandbox: Sandbox) -> None:
    one, other = (sandbox.connect("github", "grace") for _ in range(2))

    def end(token: str | None, *credentials: str) -> int:
        asked = sandbox.github("POST", "/credentials/revoke", token, json={"credentials": list(credentials)})
        return int(asked.status_code)

    assert end(other["access_token"], one["refresh_token"]) == 403
    assert end(None) == 422
    assert end(None, one["refresh_token"], "ghr_nobodys") == 202
    alive = [sandbox.github("GET", "/user", held["access_token"]).status_code for held in (one, other)]
    assert alive == [401, 200]


def test_beyond_its_rate_limit_a_bearer_is_refused_until_the_window_ends_and_others_are_not(sandbox: Sandbox) -> None:
    sandbox.order("github", "limits", limit=2, seconds=3600)
    try:
        ada, installation = sandbox.connect("github", "ada")["access_token"], sandbox.installation_token()
        answers = [sandbox.github("GET", "/repos/acme/shop", ada) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 403]
        assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
        assert int(answers[2].headers["x-ratelimit-reset"]) > time.time() + 3000
        assert answers[2].json()["message"].startswith("API rate limit exceeded")
        assert sandbox.github("GET", "/repos/acme/shop", installation).status_code == 200
    finally:
        sandbox.order("github", "limits", limit=5000, seconds=3600)
