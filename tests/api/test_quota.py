"""Quotas: counted for all processes in Redis, by each alone while that is away, and told of in headers."""

from __future__ import annotations

import secrets

import redis

from identity.api_keys import Caller, Role
from tests.api.town import Town
from tests.servers.valkey import Valkey
from webhooks.api.quota import AWAY, Quota


def caller() -> Caller:
    return Caller(key=secrets.token_hex(8), tenant="acme", agent="acme.bot", role=Role.AGENT, tools=None)


def test_two_processes_count_together(valkey: Valkey) -> None:
    who = caller()
    with valkey.client() as one, valkey.client() as other:
        first, second = Quota(3, one, prefix="t:"), Quota(3, other, prefix="t:")
        spent = [first.spend(who), second.spend(who), first.spend(who), second.spend(who)]
    assert [one.allowed for one in spent] == [True, True, True, False]
    assert spent[0].remaining == 2
    assert 1 <= spent[-1].resets_in <= 60


def test_keys_have_quotas_of_their_own(valkey: Valkey) -> None:
    with valkey.client() as client:
        quota = Quota(1, client, prefix="t:")
        assert [quota.spend(caller()).allowed for _ in range(3)] == [True, True, True]


def test_each_process_counts_alone_while_redis_is_away_and_asks_again_later() -> None:
    gone = redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2)
    times = [0.0]
    quota, who = Quota(2, gone, prefix="t:", monotonic=lambda: times[0]), caller()
    assert [quota.spend(who).allowed for _ in range(3)] == [True, True, False]
    assert quota._away_until == AWAY
    times[0] = AWAY + 1
    quota.spend(who)
    assert quota._away_until == 2 * AWAY + 1


def test_whoever_asks_too_often_is_told_when_to_ask_again(sqlite_town: Town) -> None:
    first = sqlite_town.ask("GET", "/v1/tools")
    assert first.headers["RateLimit-Policy"] == '"requests";q=10000;w=60'
    assert first.headers["RateLimit"].startswith('"requests";r=9999;t=')
    sqlite_town.limit(1)
    assert sqlite_town.ask("GET", "/v1/tools").status_code == 200
    answer = sqlite_town.ask("GET", "/v1/tools")
    assert (answer.status_code, answer.json["type"]) == (429, "urn:aswhom:problem:too-many-requests")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert answer.headers["RateLimit"].startswith('"requests";r=0;')
