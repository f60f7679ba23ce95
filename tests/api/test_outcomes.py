"""What an agent is told of a tool's end: at once, or by asking for its job again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

import pytest
from pydantic import create_model

from identity.agents.api_keys import Role
from identity.model import Effect
from pipeline.action import Facts
from pipeline.authoring.registry import Registry
from pipeline.jobs import claims, waits
from pipeline.jobs.intents import Ended, Intent
from pipeline.states import AttemptState, StepState, Wait
from tests.api.agents_api import AgentsApi
from tests.ledger.acts import close, done, open_
from tests.ledger.house import Say, intent_of

DAYS = timedelta(days=14)


def again(api: AgentsApi) -> Any:
    """The one request of these tests, and what it is answered each time."""
    return api.execute(Idempotency_Key="k-1")


def called(api: AgentsApi) -> Intent:
    """The call of a tool whose job a worker has, on the wire."""
    asked = intent_of(api.house, api.house.claim(again(api).json["job"]["id"]))
    open_(api.house, asked)
    return asked


def unanswered(api: AgentsApi) -> Intent:
    """A call that got no answer, whose job waits for a person's word about it."""
    asked = called(api)
    close(api.house, asked, AttemptState.UNKNOWN, StepState.UNKNOWN, error="no answer came")
    wait = partial(claims.park, job=asked.job, wait=Wait.UNKNOWN, waits_for=None, due_in=DAYS, expires_in=DAYS)
    api.database.write(partial(wait, reason="look at github"))
    return asked


def cancel(api: AgentsApi, job: str) -> None:
    assert api.ask("POST", f"/v1/jobs/{job}/cancel", json={}).status_code == 200


def cancelled(api: AgentsApi) -> Intent:
    asked = unanswered(api)
    cancel(api, asked.job.id)
    return asked


def forgotten(api: AgentsApi) -> Intent:
    asked = unanswered(api)
    late = partial(waits.end_wait, job=asked.job.id, fence=asked.job.fence, wait=Wait.UNKNOWN, expired=True)
    api.database.write(partial(late, reason="look at github"))
    return asked


def failed(api: AgentsApi) -> Intent:
    asked = called(api)
    close(api.house, asked, AttemptState.NO_EFFECT, StepState.FAILED, error="status 422: no such label")
    api.database.write(partial(claims.bury, job=asked.job, reason="ActionFailed: github.Say failed: status 422: …"))
    return asked


def stopped_at_its_search(api: AgentsApi) -> Intent:
    """Its step is open again, as the search for its effect had opened it."""
    asked = called(api)
    close(api.house, asked, AttemptState.UNKNOWN, StepState.OPEN)
    cancel(api, asked.job.id)
    api.database.write(partial(claims.cancel, job=asked.job, reason="it was to stop"))
    return asked


def on_the_wire(api: AgentsApi) -> Intent:
    asked = called(api)
    cancel(api, asked.job.id)
    api.database.write(partial(claims.cancel, job=asked.job, reason="it was to stop"))
    return asked


@pytest.mark.parametrize("ends", [cancelled, forgotten, stopped_at_its_search, on_the_wire])
def test_a_tool_that_ended_with_a_call_that_may_have_been_made_is_unknown(api: AgentsApi, ends: Any) -> None:
    ended = ends(api)
    answer = again(api)
    assert (answer.status_code, answer.json["outcome"]) == (200, "unknown")
    assert (answer.json["job"]["id"], answer.json["result"]) == (ended.job.id, None)
    assert answer.json["reason"]


def test_jobs_ended_without_a_word_about_their_call_are_listed_among_the_unknown(sqlite_api: AgentsApi) -> None:
    def listed(query: str) -> list[str]:
        return [row["id"] for row in sqlite_api.ask("GET", f"/v1/jobs?{query}").json["items"]]

    asked = unanswered(sqlite_api)
    assert listed("wait=unknown") == listed("wait=unknown&state=waiting") == [asked.job.id]
    cancel(sqlite_api, asked.job.id)
    assert (listed("wait=unknown"), listed("wait=unknown&state=waiting")) == ([asked.job.id], [])


class Read(Say):
    """The same tool, were it one that only looks."""

    facts: ClassVar[Facts] = replace(Say.facts, effect=Effect.READ)


@pytest.mark.parametrize("ends", [stopped_at_its_search, on_the_wire])
def test_a_tool_that_only_reads_leaves_nothing_in_doubt(sqlite_api: AgentsApi, ends: Any) -> None:
    reads = create_model("Say", __base__=Read, __module__=Say.__module__)
    sqlite_api.deploy(Registry([], [reads]))
    ended = ends(sqlite_api)
    assert (again(sqlite_api).json["outcome"], shown(sqlite_api, ended.job.id)["outcome"]) == ("cancelled",) * 2


def test_a_late_answer_says_what_was_unknown(api: AgentsApi) -> None:
    done(api.house, cancelled(api), {"id": "7"})
    answer = again(api)
    assert (answer.json["outcome"], answer.json["result"], answer.json["reason"]) == ("cancelled", {"id": "7"}, None)


def test_a_tool_that_was_never_called_is_cancelled_and_nothing_more(api: AgentsApi) -> None:
    cancel(api, again(api).json["job"]["id"])
    assert (again(api).json["outcome"], again(api).json["result"]) == ("cancelled", None)


def shown(api: AgentsApi, job: str) -> Any:
    return api.ask("GET", f"/v1/jobs/{job}").json


def test_a_tools_job_tells_its_outcome_as_the_request_for_it_does(api: AgentsApi) -> None:
    job = again(api).json["job"]["id"]
    assert (shown(api, job)["outcome"], shown(api, job)["result"]) == ("pending", None)
    api.finish(job, result={"id": "7"})
    answer = again(api).json
    assert (shown(api, job)["outcome"], shown(api, job)["result"]) == ("done", {"id": "7"})
    assert (answer["outcome"], answer["result"]) == ("done", {"id": "7"})
    assert answer["job"] == {**shown(api, job), "result": None}  # it stands in the answer once


@pytest.mark.parametrize("ends", [called, unanswered, cancelled, forgotten, stopped_at_its_search, failed])
def test_a_job_says_the_same_reason_whoever_asks_and_whenever(sqlite_api: AgentsApi, ends: Any) -> None:
    job = ends(sqlite_api).job.id
    answer = again(sqlite_api).json
    assert answer["reason"] == answer["job"]["reason"] == shown(sqlite_api, job)["reason"]


def test_why_it_failed_is_said_in_the_steps_words_without_names_of_the_code(sqlite_api: AgentsApi) -> None:
    assert shown(sqlite_api, failed(sqlite_api).job.id)["reason"] == "status 422: no such label"


def test_whoever_cancelled_is_named_beside_the_call_that_nobody_knows_of(sqlite_api: AgentsApi) -> None:
    reason = shown(sqlite_api, cancelled(sqlite_api).job.id)["reason"]
    assert reason.startswith("cancelled by api:acme.bot:")
    assert reason.endswith("; no answer came")


def test_another_workflows_job_has_steps_and_no_outcome(sqlite_api: AgentsApi) -> None:
    job = sqlite_api.ask("GET", f"/v1/jobs/{sqlite_api.house.job()}", sqlite_api.keys["acme", Role.ADMIN]).json
    assert (job["outcome"], job["result"], job["steps"]) == (None, None, [])


def test_whoever_asks_for_a_job_may_wait_for_its_end(api: AgentsApi) -> None:
    job = again(api).json["job"]["id"]
    api.at_work = lambda: api.finish(job, result={"id": "7"})
    answer = api.ask("GET", f"/v1/jobs/{job}?wait=20").json
    assert (answer["outcome"], answer["result"]) == ("done", {"id": "7"})


def test_whoever_may_not_see_a_job_does_not_wait_for_it(sqlite_api: AgentsApi) -> None:
    api, waited = sqlite_api, list[str]()
    job = again(api).json["job"]["id"]
    api.at_work = lambda: waited.append(job)
    answer = api.ask("GET", f"/v1/jobs/{job}?wait=20", api.keys["globex", Role.ADMIN])
    assert (answer.status_code, waited) == (404, [])


def test_nobody_waits_longer_for_a_job_than_for_a_tool(sqlite_api: AgentsApi) -> None:
    job = again(sqlite_api).json["job"]["id"]
    assert [sqlite_api.ask("GET", f"/v1/jobs/{job}?wait={wait}").status_code for wait in ("20.5", "-1", "x")] == [
        422
    ] * 3


def when_to_look_again(api: AgentsApi, job: str) -> list[str | None]:
    """As the request for the tool is told, and whoever asks for its job."""
    return [answer.headers.get("Retry-After") for answer in (again(api), api.ask("GET", f"/v1/jobs/{job}"))]


def test_an_answer_before_the_end_says_when_to_ask_again(api: AgentsApi) -> None:
    job = again(api).json["job"]["id"]
    assert when_to_look_again(api, job) == ["1", "1"]
    claimed = api.house.claim(job)
    assert when_to_look_again(api, job) == ["1", "1"]
    park = partial(claims.park, waits_for="x", due_in=DAYS, expires_in=DAYS, reason="connect")
    api.database.write(partial(park, job=claimed, wait=Wait.CONSENT))
    assert (again(api).json["outcome"], when_to_look_again(api, job)) == ("needs_consent", ["30", "30"])
    cancel(api, job)
    assert when_to_look_again(api, job) == [None, None]


@pytest.mark.parametrize(("pause", "seconds"), [(25, range(2, 26)), (3600, [30])])
def test_a_job_that_is_tried_again_later_is_not_asked_for_before(
    api: AgentsApi, pause: int, seconds: Collection[int]
) -> None:
    job = again(api).json["job"]["id"]
    claimed, delay = api.house.claim(job), timedelta(seconds=pause)
    api.database.write(partial(claims.requeue, job=claimed, delay=delay, reason="the rate is limited"))
    for told in when_to_look_again(api, job):
        assert told is not None
        assert int(told) in seconds


def awaits(api: AgentsApi, identifier: str, principal: str) -> Any:
    """The answer for a tool as *identifier*, whose job waits for the consent of *principal*."""
    answer = api.execute(identifier, Idempotency_Key=identifier)
    lacking = intent_of(api.house, api.house.claim(answer.json["job"]["id"]), principal=principal)
    lease = replace(lacking.lease, principal=principal, scopes=frozenset({"repo", "admin"}))
    outcome = open_(api.house, replace(lacking, lease=lease))
    assert isinstance(outcome, Ended)
    return api.execute(identifier, Idempotency_Key=identifier).json


def test_who_must_connect_what_is_told_as_the_request_for_a_link_takes_it(api: AgentsApi) -> None:
    answer = awaits(api, "ada", "acme.ada")
    assert answer["outcome"] == "needs_consent"
    consent = {
        "account": "acme/gh/acme.ada",
        "connection": "gh",
        "user": "acme.ada",
        "missing_scopes": ["admin", "repo"],
    }
    assert answer["job"]["consent"] == consent
    (listed,) = api.ask("GET", "/v1/jobs?state=waiting").json["items"]
    assert listed["consent"] == consent


def test_of_a_service_an_operator_is_told_which_account_it_is(sqlite_api: AgentsApi) -> None:
    consent = awaits(sqlite_api, "acme", "acme.service")["job"]["consent"]
    assert (consent["account"], consent["user"]) == ("acme/gh/acme.service", None)


def test_a_job_that_waits_for_no_consent_needs_none(sqlite_api: AgentsApi) -> None:
    assert again(sqlite_api).json["job"]["consent"] is None
