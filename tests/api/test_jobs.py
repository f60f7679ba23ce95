"""Jobs that agents end, and that admins bring back."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from functools import partial
from typing import Any, get_args

import pytest
from sqlalchemy import insert

from identity.agents.api_keys import Role
from identity.model import Scope, ScopeKind
from pipeline.agents_api.callers import Keyed
from pipeline.agents_api.requests import NotLetIn
from pipeline.jobs import claims
from pipeline.model import DeliveryOutcome
from pipeline.states import Wait
from pipeline.tables import jobs as rows
from tests.api.agents_api import AgentsApi
from tests.ledger.acts import until_awaited
from webhooks.api.models import Recorded


def post(
    api: AgentsApi,
    job: str,
    verb: str,
    role: Role = Role.ADMIN,
    *,
    tenant: str = "acme",
    headers: dict[str, str] | None = None,
) -> Any:
    return api.ask("POST", f"/v1/jobs/{job}/{verb}", api.keys[tenant, role], json={}, headers=headers)


def test_a_job_is_cancelled_and_replayed(api: AgentsApi) -> None:
    job = api.execute().json["job"]["id"]
    cancelled = post(api, job, "cancel", Role.AGENT)
    assert (cancelled.status_code, cancelled.json["state"]) == (200, "cancelled")
    api.ring.rung.clear()
    replayed = post(api, job, "replay")
    assert (replayed.status_code, replayed.json["state"]) == (202, "queued")
    replayed.close()
    assert api.ring.rung == [job]


def test_a_key_of_some_tools_has_no_job_of_another_done_again(sqlite_api: AgentsApi) -> None:
    """Or a tool that it may not call would be carried out by it all the same."""
    api = sqlite_api
    job = api.execute().json["job"]["id"]
    post(api, job, "cancel")
    linear, github = (api.key(role=Role.ADMIN, tools=[f"{one}.*"]) for one in ("linear", "github"))
    refused = api.ask("POST", f"/v1/jobs/{job}/replay", linear, json={})
    assert (refused.status_code, "no tool github.Say for this key" in refused.json["detail"]) == (404, True)
    assert api.house.row(job).state == "cancelled"
    assert api.ask("POST", f"/v1/jobs/{job}/replay", github, json={}).status_code == 202


def test_a_job_that_runs_stops_at_its_next_step(api: AgentsApi) -> None:
    job = api.execute().json["job"]["id"]
    claimed = api.house.claim(job)
    assert post(api, job, "cancel").json["state"] == "stopping"
    again = post(api, job, "cancel")
    assert (again.status_code, again.json["state"]) == (200, "stopping")
    api.database.write(partial(claims.cancel, job=claimed, reason="it was to stop"))
    again = post(api, job, "cancel")
    assert (again.status_code, again.json["state"]) == (200, "cancelled")
    assert api.acts() == ["job.cancelled"]


def test_a_job_that_cannot_be_ended_or_accepted_anew_is_told_so_for_as_long_as_it_stays_so(api: AgentsApi) -> None:
    job = api.execute().json["job"]["id"]
    queued = post(api, job, "replay")
    api.finish(job, result={"id": "7"})
    done = post(api, job, "cancel")
    for answer, state in ((queued, "queued"), (done, "done")):
        assert (answer.status_code, answer.json["type"]) == (409, "urn:aswhom:problem:not-in-state")
        assert state in answer.json["detail"]
    assert api.acts() == []


def test_an_act_with_a_key_is_done_once(api: AgentsApi) -> None:
    job, key = api.execute().json["job"]["id"], {"Idempotency-Key": "once"}
    other = {"Idempotency-Key": "other"}
    assert post(api, job, "cancel", headers=key).json["state"] == "cancelled"
    assert post(api, job, "replay", headers=other).json["state"] == "queued"
    assert post(api, job, "cancel", headers=key).json["state"] == "queued", "it was cancelled by that key before"
    assert post(api, job, "cancel").json["state"] == "cancelled"
    api.ring.rung.clear()
    answer = post(api, job, "replay", headers=other)
    answer.close()
    assert (answer.status_code, answer.json["state"], api.ring.rung) == (202, "cancelled", [])
    assert api.acts() == ["job.cancelled", "job.replayed", "job.cancelled"]


def test_a_key_of_one_act_is_refused_for_another(api: AgentsApi) -> None:
    job, another = (api.execute(text=text).json["job"]["id"] for text in ("hello", "goodbye"))
    key = {"Idempotency-Key": "once"}
    post(api, job, "cancel", headers=key)
    for refused in (post(api, job, "replay", headers=key), post(api, another, "cancel", headers=key)):
        assert (refused.status_code, refused.json["type"]) == (422, "urn:aswhom:problem:idempotency-key-reused")
    assert api.acts() == ["job.cancelled"]


def test_a_key_of_an_act_that_was_refused_is_free(api: AgentsApi) -> None:
    job, key = api.execute().json["job"]["id"], {"Idempotency-Key": "once"}
    assert post(api, job, "replay", headers=key).status_code == 409
    assert post(api, job, "cancel", headers=key).status_code == 200


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)  # SQLite has one writer
def test_a_job_that_a_worker_claims_meanwhile_is_stopped_all_the_same(api: AgentsApi) -> None:
    """The claim commits when the job was read."""
    job = api.execute().json["job"]["id"]
    answers: list[Any] = []
    cancelling = threading.Thread(target=lambda: answers.append(post(api, job, "cancel")))
    until_awaited(api.database, partial(claims.claim, job=job, claim_for=timedelta(minutes=1)), by=cancelling)
    (answer,) = answers
    assert (answer.status_code, answer.json["state"]) == (200, "stopping")


def test_another_tenants_or_agents_job_is_not_there(api: AgentsApi) -> None:
    job = api.execute().json["job"]["id"]
    for verb in ("cancel", "replay"):
        assert post(api, job, verb, tenant="globex").status_code == 404
    other = api.key(agent="other")
    assert api.ask("POST", f"/v1/jobs/{job}/cancel", other, json={}).status_code == 404


def test_a_key_that_ended_before_the_commit_changes_nothing(api: AgentsApi) -> None:
    job, who = api.execute().json["job"]["id"], api.caller(api.keys["acme", Role.ADMIN])
    api.revoke(Scope(kind=ScopeKind.AGENT, key=who.agent))
    state = api.house.row(job).state
    for change in (api.requests.cancel, api.requests.replay):
        with pytest.raises(NotLetIn):
            change(who, job, Keyed(key=None, document={}), now=api.now())
    assert api.house.row(job).state == state


@pytest.mark.parametrize(
    ("filter", "wrong"),
    [
        ("jobs?state=queued", "Queued"),
        ("accounts?state=active", "needs-reconnect"),
        ("deliveries?outcome=signal", "done"),
    ],
)
def test_a_filter_by_a_word_that_there_is_not_is_refused(sqlite_api: AgentsApi, filter: str, wrong: str) -> None:
    key, (field, _, right) = sqlite_api.keys["acme", Role.ADMIN], filter.partition("?")[2].partition("=")
    answer = sqlite_api.ask("GET", f"/v1/{filter}", key)
    assert (answer.status_code, [error["where"] for error in answer.json.get("errors", ())]) == (200, [])
    answer = sqlite_api.ask("GET", f"/v1/{filter.removesuffix(right)}{wrong}", key)
    assert (answer.status_code, [error["where"] for error in answer.json["errors"]]) == (422, [field])


def test_deliveries_are_found_by_every_outcome_that_is_on_record() -> None:
    assert set(get_args(Recorded)) == set(DeliveryOutcome) - {DeliveryOutcome.DUPLICATE}


def test_jobs_are_found_by_whom_they_act_for_and_what_they_wait_for(api: AgentsApi) -> None:
    adas, ours = (api.execute(identifier).json["job"]["id"] for identifier in ("ada", "acme"))
    days = timedelta(days=14)
    park = partial(claims.park, wait=Wait.CONSENT, waits_for=None, due_in=days, expires_in=days, reason="connect")
    api.database.write(partial(park, job=api.house.claim(adas)))
    for filters, found in {
        "user=acme.ada": [adas],
        "user=ada": [adas],
        "pattern=service": [ours],
        "pattern=delegated&wait=consent": [adas],
        "wait=consent": [adas],
        "wait=approval": [],
    }.items():
        assert [job["id"] for job in api.ask("GET", f"/v1/jobs?{filters}").json["items"]] == found, filters


def test_a_page_looks_through_so_many_jobs_and_says_where_to_go_on(sqlite_api: AgentsApi) -> None:
    api = sqlite_api
    adas, ours = (api.execute(identifier).json["job"]["id"] for identifier in ("ada", "acme"))
    row = api.house.row(ours)._asdict()
    many = [row | {"id": f"job_{number}"} for number in range(10_000)]
    api.database.write(lambda c: c.execute(insert(rows), many).rowcount)
    first = api.ask("GET", "/v1/jobs?user=acme.ada").json
    assert first["items"] == []
    rest = api.ask("GET", f"/v1/jobs?user=acme.ada&cursor={first['next']}").json
    assert ([job["id"] for job in rest["items"]], rest["next"]) == ([adas], None)


def test_jobs_are_found_by_their_state(api: AgentsApi) -> None:
    api.execute()
    assert len(api.ask("GET", "/v1/jobs?state=queued").json["items"]) == 1
    assert api.ask("GET", "/v1/jobs?state=done").json["items"] == []


def test_the_jobs_of_a_user_are_listed_by_each_way_of_naming_them_and_nobodys_are_refused(
    sqlite_api: AgentsApi,
) -> None:
    api = sqlite_api
    job = api.execute().json["job"]["id"]
    api.execute("acme")
    for name in ("ada", "acme.ada", "user:ada"):
        assert [one["id"] for one in api.ask("GET", f"/v1/jobs?user={name}").json["items"]] == [job]
    refused = api.ask("GET", "/v1/jobs?user=zoe")
    assert (refused.status_code, refused.json["type"]) == (422, "urn:aswhom:problem:unknown-identifier")


def test_the_jobs_of_a_tool_are_listed_as_whomever_they_are(sqlite_api: AgentsApi) -> None:
    api = sqlite_api
    of_it = {api.execute(identifier).json["job"]["id"] for identifier in ("ada", "acme")}
    api.house.job()
    for name in ("github.Say", "github__Say"):
        listed = api.ask("GET", f"/v1/jobs?tool={name}", api.keys["acme", Role.ADMIN]).json["items"]
        assert {one["id"] for one in listed} == of_it
    assert api.ask("GET", "/v1/jobs?tool=github.Other").json["items"] == []


def test_a_job_that_was_put_off_says_until_when(sqlite_api: AgentsApi) -> None:
    api = sqlite_api
    job = api.execute().json["job"]["id"]
    assert api.ask("GET", f"/v1/jobs/{job}").json["next_try_at"] is None
    put_off = partial(claims.requeue, delay=timedelta(minutes=50), reason="a rate limit is reached")
    api.database.write(partial(put_off, job=api.house.claim(job)))
    (listed,) = api.ask("GET", "/v1/jobs").json["items"]
    shown = api.ask("GET", f"/v1/jobs/{job}")
    assert shown.headers["Retry-After"] == "30"
    assert listed["next_try_at"] == shown.json["next_try_at"]
    left = datetime.fromisoformat(shown.json["next_try_at"]) - api.now()
    assert timedelta(minutes=49) < left <= timedelta(minutes=50)
