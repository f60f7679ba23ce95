"""Who is let in and to what: every operation with every role, and keys that have ended in every way."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import select
from werkzeug.routing import Rule

from deploy.cli.rates import Limit
from identity.agents.api_keys import Role, revoke_key
from identity.agents.tables import api_keys
from identity.audit import Act
from identity.errors import BadInput
from identity.model import Scope, ScopeKind
from identity.secret import Secret
from pipeline.desk.rates import limit_agent, limit_key
from tests.api.agents_api import AgentsApi
from tests.ledgers import MOSTLY_SQLITE
from webhooks.api.access import NEEDS, ROLES, May

pytestmark = MOSTLY_SQLITE

AGENT, PRODUCT, READER, ADMIN = Role.AGENT, Role.PRODUCT, Role.READER, Role.ADMIN

#: What docs/api.md promises, written down once more: role by operation.
MATRIX = {
    "list_tools": {AGENT, PRODUCT, READER, ADMIN},
    "show_tool": {AGENT, PRODUCT, READER, ADMIN},
    "execute_tool": {AGENT, ADMIN},
    "mcp": {AGENT, PRODUCT, READER, ADMIN},
    "list_jobs": {AGENT, PRODUCT, READER, ADMIN},
    "show_job": {AGENT, PRODUCT, READER, ADMIN},
    "cancel_job": {AGENT, ADMIN},
    "replay_job": {ADMIN},
    "list_accounts": {AGENT, PRODUCT, READER, ADMIN},
    "show_account": {AGENT, PRODUCT, READER, ADMIN},
    "create_connect_link": {AGENT, PRODUCT, ADMIN},
    "look_at_connect_link": {PRODUCT, ADMIN},
    "confirm_connect_link": {PRODUCT, ADMIN},
    "list_deliveries": {READER, ADMIN},
    "show_delivery": {READER, ADMIN},
    "list_revocations": {READER, ADMIN},
    "show_revocation": {READER, ADMIN},
    "create_revocation": {ADMIN},
}


def operations(api: AgentsApi) -> Iterator[tuple[str, str, Rule]]:
    """Name, method and rule of every operation of the API."""
    for rule in api.app.url_map.iter_rules():
        blueprint, _, name = rule.endpoint.rpartition(".")
        if blueprint == "v1":
            (method,) = (rule.methods or set()) - {"HEAD", "OPTIONS"}
            yield name, method, rule


def call(api: AgentsApi, method: str, rule: Rule, key: Secret | None, query: str = "") -> tuple[int, str]:
    """The status of a call that names nothing there is, and the kind of problem."""
    path = rule.rule.replace("<tool>", "none").replace("<id>", "none") + query
    headers = {} if key is None else {"Authorization": f"Bearer {key.reveal()}"}
    answer = api.client.open(path, method=method, json={} if method == "POST" else None, headers=headers)
    return answer.status_code, (answer.json or {}).get("type", "")


def test_the_matrix_is_of_all_operations(sqlite_api: AgentsApi) -> None:
    served = {name for name, _, _ in operations(sqlite_api)}
    assert served == MATRIX.keys()
    ours = {rule.endpoint for rule in sqlite_api.app.url_map.iter_rules() if rule.rule.startswith("/v1/")}
    assert {name for name in ours if not name.startswith("v1.")} == {"openapi"}, "who comes in otherwise, nobody asks"
    assert {name: {role for role in Role if may in ROLES[role]} for name, may in NEEDS.items()} == MATRIX
    assert set(NEEDS.values()) == set(May)


def test_every_operation_lets_in_the_roles_it_says_and_no_other(sqlite_api: AgentsApi) -> None:
    for name, method, rule in operations(sqlite_api):
        for role in Role:
            status, kind = call(sqlite_api, method, rule, sqlite_api.keys["acme", role])
            let_in = kind != "urn:aswhom:problem:not-allowed"
            assert let_in is (role in MATRIX[name]), (name, role, status)
            assert let_in or status == 403


def test_a_parameter_that_an_operation_does_not_have_is_refused(sqlite_api: AgentsApi) -> None:
    for name, method, rule in operations(sqlite_api):
        answer = call(sqlite_api, method, rule, sqlite_api.keys["acme", ADMIN], "?mispelt=0")
        assert answer == (422, "urn:aswhom:problem:unusable"), name


def test_nothing_is_answered_without_a_key(sqlite_api: AgentsApi) -> None:
    for name, method, rule in operations(sqlite_api):
        assert call(sqlite_api, method, rule, None)[0] == 401, name
        assert call(sqlite_api, method, rule, Secret("awk_nobody"))[0] == 401, name


def test_a_refusal_says_how_to_come_in(sqlite_api: AgentsApi) -> None:
    answer = sqlite_api.client.get("/v1/jobs", headers={"Authorization": "Basic canary"})
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="aswhom"')
    assert answer.content_type == "application/problem+json"
    assert answer.headers["Request-Id"].startswith("req_")
    nowhere = sqlite_api.client.get("/v1/jobs?user=%00")  # refused before anybody is asked for a key
    assert nowhere.status_code == 400
    assert nowhere.headers["Request-Id"].startswith("req_")
    assert "canary" not in answer.text


@pytest.mark.parametrize(
    ("sent", "status", "challenge"),
    [
        (None, 401, 'Bearer realm="aswhom"'),
        ("Bearer", 401, 'Bearer realm="aswhom", error="invalid_token"'),
        ("bearer awk_nobody", 401, 'Bearer realm="aswhom", error="invalid_token"'),
        ("of an agent", 403, 'Bearer realm="aswhom", error="insufficient_scope"'),
    ],
)
def test_a_refusal_says_what_is_wrong_with_the_key(
    sqlite_api: AgentsApi, sent: str | None, status: int, challenge: str
) -> None:
    """As RFC 6750 §3.1 words it: of none at all, nothing is wrong."""
    if sent == "of an agent":
        sent = f"Bearer {sqlite_api.keys['acme', AGENT].reveal()}"
    answer = sqlite_api.client.get("/v1/revocations", headers={"Authorization": sent} if sent else {})
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (status, challenge)


def test_a_key_that_is_refused_is_told_with_where_it_was_tried_from(
    sqlite_api: AgentsApi, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", logger="webhooks.api.access"):
        sqlite_api.client.get("/v1/jobs", headers={"Authorization": "Bearer awk_canary", "User-Agent": "canary"})
    ((record),) = caplog.records
    said = vars(record)
    assert (said["action"], said["from"]) == ("api.refused", "127.0.0.1")
    assert "canary" not in str(said)


def test_an_expired_key_lets_nobody_in(api: AgentsApi) -> None:
    assert api.ask("GET", "/v1/jobs").status_code == 200
    api.ahead = timedelta(days=2)
    assert api.ask("GET", "/v1/jobs").status_code == 401


def test_a_revoked_key_lets_nobody_in(api: AgentsApi) -> None:
    key, other = api.key(agent="other"), api.key(agent="other")
    secret = key.fingerprint()
    id = api.database.read(
        lambda c: c.execute(select(api_keys.c.id).where(api_keys.c.secret_sha256 == secret)).scalar_one()
    )
    assert api.database.write(lambda c: revoke_key(c, id, by="test", now=api.now()))
    assert not api.database.write(lambda c: revoke_key(c, id, by="test", now=api.now()))
    assert api.ask("GET", "/v1/jobs", key).status_code == 401
    assert api.ask("GET", "/v1/jobs", other).status_code == 200


@pytest.mark.parametrize(
    "scope", [Scope(kind=ScopeKind.AGENT, key="acme.bot"), Scope(kind=ScopeKind.TENANT, key="acme")], ids=str
)
def test_a_revocation_ends_the_keys_there_were_and_no_later_one(api: AgentsApi, scope: Scope) -> None:
    assert api.execute().status_code == 202
    api.revoke(scope)
    assert api.execute().status_code == 401
    assert api.execute(key=api.key()).status_code == 202
    assert api.ask("GET", "/v1/jobs", api.keys["globex", Role.AGENT]).status_code == 200


@pytest.mark.parametrize(
    "scope", [Scope(kind=ScopeKind.AGENT, key="acme.bot"), Scope(kind=ScopeKind.TENANT, key="acme")], ids=str
)
def test_a_stop_keeps_out_until_it_is_opened(api: AgentsApi, scope: Scope) -> None:
    api.stop(scope)
    answer = api.execute()
    assert (answer.status_code, answer.json["type"]) == (403, "urn:aswhom:problem:stopped")
    api.stop(scope, stopped=False)
    assert api.execute().status_code == 202


def test_another_tenants_things_are_not_there(api: AgentsApi) -> None:
    job = api.execute().json["job"]["id"]
    for role in Role:
        foreign = api.keys["globex", role]
        assert api.ask("GET", f"/v1/jobs/{job}", foreign).status_code == 404
        assert api.ask("GET", "/v1/jobs", foreign).json["items"] == []


def test_an_agents_key_sees_its_own_agents_jobs_and_a_readers_all(api: AgentsApi) -> None:
    job = api.execute().json["job"]["id"]
    other = api.key(agent="other")
    assert api.ask("GET", f"/v1/jobs/{job}", other).status_code == 404
    assert api.ask("GET", "/v1/jobs", other).json["items"] == []
    reader = api.key(agent="other", role=Role.READER)
    assert api.ask("GET", f"/v1/jobs/{job}", reader).status_code == 200


def test_an_agent_of_another_tenant_or_of_the_platform_gets_no_key(api: AgentsApi) -> None:
    api.house.job()  # makes the platform's agent of the workflow
    for agent in ("globex.bot", "tester"):
        with pytest.raises(BadInput, match="another name"):
            api.key(agent=agent, whole=True)


def test_whoever_asks_too_often_is_told_when_to_ask_again(sqlite_api: AgentsApi) -> None:
    first = sqlite_api.ask("GET", "/v1/tools")
    assert first.headers["RateLimit-Policy"] == '"requests";q=10000;w=60'
    assert first.headers["RateLimit"].startswith('"requests";r=9999;t=')
    sqlite_api.limit(1)
    assert sqlite_api.ask("GET", "/v1/tools").status_code == 200
    answer = sqlite_api.ask("GET", "/v1/tools")
    assert (answer.status_code, answer.json["type"]) == (429, "urn:aswhom:problem:too-many-requests")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert answer.headers["RateLimit"].startswith('"requests";r=0;')


def test_a_key_may_have_a_rate_of_its_own(sqlite_api: AgentsApi) -> None:
    key, other = sqlite_api.key(), sqlite_api.key()
    _limit(sqlite_api, limit_key, _id(sqlite_api, key), 2)
    assert [_policy(sqlite_api, key) for _ in range(3)] == [(200, "q=2"), (200, "q=2"), (429, "q=2")]
    assert _policy(sqlite_api, other) == (200, "q=10000")
    _limit(sqlite_api, limit_key, _id(sqlite_api, key), None)
    assert _policy(sqlite_api, key) == (200, "q=10000")


def test_all_keys_of_an_agent_with_a_rate_have_one_quota(sqlite_api: AgentsApi) -> None:
    """Whatever the setting says of each key, and beside the rate that one of them has."""
    keys = [sqlite_api.key(agent="crowd") for _ in range(4)]
    _limit(sqlite_api, limit_agent, "acme.crowd", 4)
    _limit(sqlite_api, limit_key, _id(sqlite_api, keys[0]), 1)
    sqlite_api.limit(1)
    assert [_policy(sqlite_api, keys[0]) for _ in range(3)] == [(200, "q=1"), (429, "q=1"), (429, "q=1")]
    asked = [_policy(sqlite_api, key) for key in keys[1:] for _ in range(2)]
    assert asked == [(200, "q=4")] * 3 + [(429, "q=4")] * 3
    answer = sqlite_api.ask("GET", "/v1/tools", key=keys[3])
    assert answer.json["detail"].startswith("All keys of this agent together may make 4 requests a minute.")
    assert _policy(sqlite_api, sqlite_api.key()) == (200, "q=1"), "another agent's"


def _limit(api: AgentsApi, limit: Limit, id: str, rate: int | None) -> None:
    act = Act(audit_id=api.house.ids("aud"), by="test", now=api.now())
    api.database.write(lambda c: limit(c, id, rate, act))


def _id(api: AgentsApi, key: Secret) -> str:
    whose = select(api_keys.c.id).where(api_keys.c.secret_sha256 == key.fingerprint())
    return str(api.database.read(lambda c: c.execute(whose).scalar_one()))


def _policy(api: AgentsApi, key: Secret) -> tuple[int, str]:
    """The status of one request, and the quota that it is told of."""
    answer = api.ask("GET", "/v1/tools", key=key)
    return answer.status_code, answer.headers["RateLimit-Policy"].split(";")[1]
