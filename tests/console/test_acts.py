"""What people do at the console has the effect that the command line's verbs have, and their name is on it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from html import unescape
from typing import TypeVar

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Connection, select, update

from identity.audit.tables import audit
from identity.console.roles import Held, Role
from identity.errors import BadInput, Unavailable, Unconfirmed
from identity.model import Scope, ScopeKind
from identity.sql.store import CommitUnknown, Store
from identity.tables import provider_connections, scopes
from identity.tenants import Tenants
from pipeline.accounts import facts
from pipeline.desk.revocations import revoke_once
from pipeline.ledger.paging import EVERY
from pipeline.revocation.declaration import Cause
from pipeline.revocation.tables import revocations
from pipeline.states import JobState
from pipeline.tables import attempts, deliveries, jobs, schedules
from pipeline.views import tenant_views
from tests.console.console_app import ConsoleApp, Visit
from tests.leaving import Leaving
from tests.ledgers import turn_taken
from webhooks.settings import WebSettings

T = TypeVar("T")

BY = "console:operator@all"
NAMES = [BY, "console:00u-operator"]


def _said(console: ConsoleApp, kind: str) -> list[str]:
    rows = select(audit.c.reason).where(audit.c.kind == kind).order_by(audit.c.number)
    return [row.reason for row in console.rows(rows)]


def test_a_job_is_cancelled_and_replayed(console: ConsoleApp) -> None:
    job, operator = console.waiting(), console.at(Role.OPERATOR)
    answer = operator.sends(f"/console/jobs/{job}/cancel")
    assert answer.headers["Location"] == f"/console/jobs/{job}?done=cancelled"
    assert console.state(job) is JobState.CANCELLED
    assert "The job is cancelled." in operator.sees(answer.headers["Location"])
    operator.sends(f"/console/jobs/{job}/replay")
    assert console.state(job) is JobState.QUEUED
    assert console.house.row(job).replayed_by == NAMES
    assert console.ring.rung == [job]
    assert (_said(console, "job.cancelled"), _said(console, "job.replayed")) == ([f"by {BY}"], [f"by {BY}"])
    assert operator.sends(f"/console/jobs/{job}/replay").status_code == 422


def test_a_form_that_is_refused_comes_back_as_it_was_filled_in(sqlite_console: ConsoleApp) -> None:
    console, operator = sqlite_console, sqlite_console.at(Role.OPERATOR)
    asks = console.in_doubt()
    call = _call(operator, asks)
    form = {"effect": "yes", "result": '{"id": <7>', "call": call, "why": "seen there"}
    back = operator.sends(f"/console/jobs/{asks}/resolve", **form)
    assert back.status_code == 422
    assert "has to be JSON" in back.text
    assert ">{&#34;id&#34;: &lt;7&gt;</textarea>" in back.text
    assert ('value="yes" required checked>' in back.text, 'value="seen there"' in back.text) == (True, True)
    assert f'data-own="/console/jobs/{asks}"' in back.text, "where the script asks for what is new"
    assert 'data-live="acts"' not in back.text, "what is new does not undo what was written"
    looked = operator.client.get(f"/console/jobs/{asks}/resolve")
    assert (looked.status_code, looked.location) == (303, f"/console/jobs/{asks}")
    stale = operator.sends(f"/console/jobs/{asks}/resolve", effect="yes", result="{}", call="step_of_another.1")
    assert "></textarea>" in stale.text, "what was written of one call is not said of another"
    form = {"kind": "user", "key": "acme.ada", "id": console.house.ids("rev")}
    back = operator.sends("/console/revoke", **form, reason="she left, INC-4711", typed="acme.bob")
    assert (back.status_code, 'value="she left, INC-4711"' in back.text) == (422, True)
    assert f'name="id" value="{form["id"]}"' in back.text, "sent twice, it is one revocation"
    assert 'aria-describedby="mistyped"' in back.text


def test_a_job_that_runs_is_stopped_by_whoever_says_that_they_mean_that(console: ConsoleApp) -> None:
    job, operator = console.house.job(), console.at(Role.OPERATOR)
    path = f"/console/jobs/{job}"
    assert 'name="running"' not in operator.sees(path), "it is queued, and ends at once"
    console.house.claim(job)
    refused = operator.sends(f"{path}/cancel", why="sent by mistake")
    assert (refused.status_code, "The job is running by now" in refused.text) == (422, True)
    assert console.state(job) is JobState.RUNNING
    assert 'value="sent by mistake"' in refused.text
    assert re.search(r'<details open>.*name="running" value="yes" required', refused.text, re.DOTALL)
    back = operator.client.get(f"{path}/cancel")
    assert (back.status_code, back.location) == (303, path)
    assert operator.sends(f"{path}/cancel", running="yes").location == f"{path}?done=stopping"
    assert console.state(job) is JobState.STOPPING
    late = operator.sends(f"{path}/cancel")  # of a page that showed it queued: others stopped it meanwhile
    assert (late.status_code, late.location) == (303, f"{path}?done=stopping"), "what the box was for is done"
    assert len(_said(console, "job.cancelled")) == 1


def test_what_a_person_gives_as_their_reason_is_in_the_audit(sqlite_console: ConsoleApp) -> None:
    console, operator = sqlite_console, sqlite_console.at(Role.OPERATOR)
    job, asks, dead = console.waiting(), console.in_doubt(), console.dead("a KeyError")
    operator.sends(f"/console/jobs/{job}/cancel", why="sent\nby mistake")
    assert 'id="why-replay" name="why"' in operator.sees(f"/console/jobs/{job}")
    operator.sends(f"/console/jobs/{job}/replay", why="it was right")
    operator.sends(f"/console/jobs/{asks}/resolve", effect="no", call=_call(operator, asks), why="not in the channel")
    form = {"workflow": "say_it", "cause": "a KeyError", "jobs": dead}
    operator.sends("/console/dead/replay", **form, why="mended in 1.2")
    assert _said(console, "job.cancelled") == [f"by {BY}: sent by mistake"]
    assert _said(console, "job.replayed") == [f"by {BY}: it was right", f"by {BY}: mended in 1.2"]
    assert _said(console, "attempt.resolved") == [f"resolved by {BY}: not in the channel"]
    assert console.house.row(dead).replayed_by == NAMES, "which tells who does not approve it"


def test_what_an_act_did_is_said_once_and_to_whoever_did_it(sqlite_console: ConsoleApp) -> None:
    job, operator = sqlite_console.waiting(), sqlite_console.at(Role.OPERATOR)
    id = sqlite_console.revoke(Scope(kind=ScopeKind.USER, key="globex.ada"), "globex")
    for path, claim in (
        (f"jobs/{job}?done=cancelled", "The job is cancelled."),
        (f"revocations/{id}?done=revoked", "It is revoked."),
        ("dead?replayed=200", "200 jobs accepted anew"),
    ):
        assert claim not in operator.sees(f"/console/{path}"), "an address that anybody can send"
    where = operator.sends(f"/console/jobs/{job}/cancel").headers["Location"]
    assert "The job is cancelled." not in sqlite_console.at(Role.OPERATOR).sees(where), "it was somebody else"
    assert "The job is cancelled." not in operator.sees(f"/console/jobs/{sqlite_console.waiting()}?done=cancelled")
    assert "The job is cancelled." in operator.sees(where)
    assert "The job is cancelled." not in operator.sees(where), "once"


def test_what_two_tabs_did_is_said_to_each(sqlite_console: ConsoleApp) -> None:
    operator = sqlite_console.at(Role.OPERATOR)
    acts = [f"/console/jobs/{sqlite_console.waiting()}/cancel" for _ in range(2)]
    led = [operator.sends(act).headers["Location"] for act in acts]  # and neither page has come up yet
    for where in led:
        assert "The job is cancelled." in operator.sees(where)
        assert "The job is cancelled." not in operator.sees(where), "once"
    assert operator.client.get_cookie("aswhom-acted") is None


def test_the_tenant_that_was_chosen_stays_chosen(sqlite_console: ConsoleApp) -> None:
    job, operator = sqlite_console.dead("a KeyError"), sqlite_console.at(Role.OPERATOR)
    page = operator.sees("/console/jobs?tenant=acme")
    assert "<h1>Jobs of acme</h1>" in page
    assert "<title>Jobs of acme · 127.0.0.1 · Aswhom</title>" in page
    leads = f"/console/jobs/{job}?tenant=acme"
    assert f'href="{leads}"' in page
    shown = operator.sees(leads)
    assert 'href="/console/dead?tenant=acme"' in shown
    answer = operator.sends(f"/console/jobs/{job}/replay?tenant=acme")
    assert answer.headers["Location"] == f"/console/jobs/{job}?done=replayed&tenant=acme"
    assert 'href="/console/dead"' in operator.sees(f"/console/jobs/{job}")


def test_whoever_comes_back_to_the_page_of_a_reconnect_link_comes_to_the_account(sqlite_console: ConsoleApp) -> None:
    operator, path = sqlite_console.at(Role.OPERATOR), "/console/accounts/acc-acme.ada"
    sqlite_console.lose("acc-acme.ada")
    sqlite_console.house.give_secret("gh")
    made = operator.sends(f"{path}/reconnect")
    assert 'readonly autofocus value="http' in made.text
    back = operator.client.get(f"{path}/reconnect")
    assert (back.status_code, back.location) == (303, path)


def test_a_persons_word_about_a_call_lets_the_job_go_on(sqlite_console: ConsoleApp) -> None:
    console = sqlite_console
    job, operator = console.in_doubt(), console.at(Role.OPERATOR)
    call = _call(operator, job)
    assert operator.sends(f"/console/jobs/{job}/resolve", call=call).status_code == 422
    lacking = operator.sends(f"/console/jobs/{job}/resolve", effect="yes", call=call)
    assert "github.Say returns more than that" in lacking.text
    deep = operator.sends(f"/console/jobs/{job}/resolve", effect="yes", result="[" * 100_000)
    assert (deep.status_code, "has to be JSON" in deep.text) == (422, True)
    for path, field in ((f"/console/jobs/{job}/resolve", "effect"), ("/console/schedules/pause", "id")):
        assert "holds a NUL" in operator.sends(path, **{field: "\0"}).text
    assert console.state(job) is JobState.WAITING
    said = operator.sends(f"/console/jobs/{job}/resolve", effect="yes", result='{"id": "7"}', call=call)
    assert said.status_code == 303
    assert console.state(job) is JobState.QUEUED
    assert [row.state for row in console.rows(select(attempts.c.state))] == ["effect"]
    caught = (
        update(jobs).where(jobs.c.id == console.in_doubt()).values(state=JobState.DONE, wait=None).returning(jobs.c.id)
    )
    done: str = console.house.database.write(lambda c: c.execute(caught).scalar_one())
    assert "Say what became of the call." in operator.sees(f"/console/jobs/{done}"), "its workflow did without"
    said = operator.sends(f"/console/jobs/{done}/resolve", effect="no", call=_call(operator, done))
    assert said.status_code == 303
    assert console.state(done) is JobState.DONE


def _call(somebody: Visit, job: str) -> str:
    """The call that the form of a job's page is about."""
    (call,) = re.findall(r'name="call" value="([^"]+)"', somebody.sees(f"/console/jobs/{job}"))
    return str(call)


def test_of_a_job_that_has_ended_the_calls_of_each_step_in_doubt_are_offered_by_themselves(
    sqlite_console: ConsoleApp,
) -> None:
    console = sqlite_console
    job, operator = console.in_doubt(steps=2), console.at(Role.OPERATOR)
    _call(operator, job)  # one that waits asks about one step at a time
    ended = update(jobs).where(jobs.c.id == job).values(state=JobState.DEAD, wait=None)
    console.database.write(lambda c: c.execute(ended).rowcount)
    forms = operator.sees(f"/console/jobs/{job}").split(f'action="/console/jobs/{job}/resolve"')[1:]
    offered = [(re.findall(r"Step (\d)", form), re.findall(r'name="call" value="([^"]+)"', form)) for form in forms]
    assert [steps for steps, _ in offered] == [["1"], ["2"]]
    (first,), (second,) = (calls for _, calls in offered)
    assert operator.sends(f"/console/jobs/{job}/resolve", effect="no", call=second).status_code == 303
    assert _call(operator, job) == first
    assert {row.id for row in console.rows(select(attempts.c.id).where(attempts.c.state == "no_effect"))} == {second}


def test_a_persons_word_counts_for_the_call_that_they_were_shown_and_for_no_later_one(console: ConsoleApp) -> None:
    job, operator = console.in_doubt(), console.at(Role.OPERATOR)
    first, path = _call(operator, job), f"/console/jobs/{job}/resolve"
    console.in_doubt_again(job)
    assert _call(operator, job) != first
    for stale in ({"call": first}, {}):
        answer = operator.sends(path, effect="no", **stale)
        assert (answer.status_code, "another call by now than the one you were shown" in answer.text) == (422, True)
    assert console.state(job) is JobState.WAITING
    states = select(attempts.c.state).order_by(attempts.c.number)
    assert [row.state for row in console.rows(states)] == ["no_effect", "unknown"]
    assert operator.sends(path, effect="no", call=_call(operator, job)).status_code == 303
    assert console.state(job) is JobState.QUEUED


def test_all_that_one_cause_killed_comes_back_and_nothing_else(console: ConsoleApp) -> None:
    killed = [console.dead(f"the provider answers 500 to job_{number:026d}") for number in range(3)]
    other, theirs = console.dead("a KeyError"), console.dead("the provider answers 500 to job_x", tenant="globex")
    operator = console.at(Role.OPERATOR)
    shown = operator.sees("/console/dead?tenant=acme")
    (leads,) = re.findall(r'href="(/console/dead/replay[^"]*the\+provider[^"]*)">Replay 3…', shown)
    shown = operator.sees(unescape(leads))
    assert "Nothing is replayed yet." in shown
    assert "<strong>acme</strong> (3)" in shown
    assert all(job in shown.partition("<tbody>")[2].partition("<form")[0] for job in killed)
    assert "Replay 3 of acme</button>" in shown
    (cause,) = re.findall(r'name="cause" value="(the provider[^"]*)"', shown)
    (jobs,) = re.findall(r'name="jobs" value="([^"]*)"', shown)
    assert sorted(jobs.split()) == sorted(killed)
    form = {"tenant": "acme", "workflow": "say_it", "cause": cause, "jobs": jobs}
    behind = console.dead(f"the provider answers 500 to job_{9:026d}")
    answer = operator.sends("/console/dead/replay", **form)
    assert "3 jobs accepted anew" in operator.sees(answer.headers["Location"])
    assert {console.state(job) for job in killed} == {JobState.QUEUED}
    assert all(console.house.row(job).replayed_by == NAMES for job in killed)
    again = operator.sends("/console/dead/replay", **form)
    assert (again.status_code, "none of the jobs that you were shown" in again.text.lower()) == (422, True)
    assert operator.client.get(unescape(leads)).status_code == 200, "the one behind them is looked at by itself"
    assert {console.state(other), console.state(theirs), console.state(behind)} == {JobState.DEAD}, (
        "the button counted three"
    )


def test_jobs_that_came_back_are_told_and_rung_for_though_nothing_can_be_read_after_that(console: ConsoleApp) -> None:
    killed = [console.dead("a KeyError") for _ in range(2)]
    leaving = Leaving(console.database)
    operator = console.visit(Held(role=Role.OPERATOR, tenant=None), app=console.over(leaving))
    leaving.leaves = True
    form = {"tenant": "acme", "workflow": "say_it", "cause": "a KeyError", "jobs": killed[0]}
    answer = operator.sends("/console/dead/replay", **form)
    assert (answer.status_code, console.state(killed[0])) == (303, JobState.QUEUED)
    assert answer.headers["Location"].endswith("replayed=1")
    assert console.ring.rung == [killed[0]]


def test_whoever_sees_one_tenants_dead_jobs_replays_no_others(console: ConsoleApp) -> None:
    """An approver of acme who is an operator of globex sees acme's list first, and cannot bring anything of it back."""
    ours, theirs = (console.dead("a KeyError", tenant=tenant) for tenant in ("acme", "globex"))
    both = console.visit(Held(role=Role.APPROVER, tenant="acme"), Held(role=Role.OPERATOR, tenant="globex"))
    assert "KeyError" in both.sees("/console/dead")
    assert "Replay " not in both.sees("/console/dead").partition("<h1")[2]
    form = {"workflow": "say_it", "cause": "a KeyError", "jobs": theirs}
    assert both.sends("/console/dead/replay", tenant="acme", **form).status_code == 403
    assert "Replay 1" in both.sees("/console/dead?tenant=globex")
    assert both.sends("/console/dead/replay", tenant="globex", **form).status_code == 303
    assert (console.state(ours), console.state(theirs)) == (JobState.DEAD, JobState.QUEUED)


def test_a_form_that_is_too_large_is_answered_as_that(sqlite_console: ConsoleApp) -> None:
    operator = sqlite_console.at(Role.OPERATOR)
    assert (
        operator.sends("/console/jobs/job_1/resolve", effect="yes", result="x" * (WebSettings.max_body + 1)).status_code
        == 413
    )


def test_a_delivery_is_replayed_once(sqlite_console: ConsoleApp) -> None:
    console = sqlite_console
    job = console.dead("no", body=b'{"author": "1001", "installation": {"id": 77}}')
    delivery, operator = console.house.row(job).delivery_id, console.at(Role.OPERATOR)
    assert "be accepted anew" in operator.sees(f"/console/deliveries/{delivery}")
    answer = operator.sends(f"/console/deliveries/{delivery}/replay")
    assert "What was missing is started" in operator.sees(answer.headers["Location"])
    assert console.state(job) is JobState.QUEUED
    assert console.house.row(job).replayed_by == NAMES
    again = operator.sends(f"/console/deliveries/{delivery}/replay")
    assert again.headers["Location"].endswith("done=nothing")
    console.database.write(lambda c: c.execute(update(deliveries).values(left_out="misread")).rowcount)
    assert "Take off the list" in operator.sees(f"/console/deliveries/{delivery}")
    cleared = operator.sends(f"/console/deliveries/{delivery}/replay").headers["Location"]
    assert "It is off the list" in operator.sees(cleared)
    assert "Take off the list" not in operator.sees(f"/console/deliveries/{delivery}")
    assert len(console.rows(select(jobs.c.id))) == 1
    console.database.write(lambda c: c.execute(update(deliveries).values(source="aswhom")).rowcount)
    forged = operator.sends(f"/console/deliveries/{delivery}/replay")
    assert (forged.status_code, "came from outside as aswhom" in forged.text) == (422, True)


def test_a_link_to_reconnect_is_shown_once_and_leads_to_the_connect_page(sqlite_console: ConsoleApp) -> None:
    console = sqlite_console
    console.lose("acc-acme.ada")
    asks = partial(console.at(Role.OPERATOR).sends, "/console/accounts/acc-acme.ada/reconnect")
    lacking = asks()
    assert (lacking.status_code, "rotate-secret gh --name client_secret --file FILE" in lacking.text) == (409, True)
    console.house.give_secret("gh")
    answer = asks()
    assert answer.status_code == 201
    assert re.search(r'value="http://127\.0\.0\.1/connect/[\w.-]+"', answer.text)
    assert _said(console, "connect.invited") == [f"through gh, by {BY}"]
    of_service = console.at(Role.OPERATOR).sends("/console/accounts/acc-acme.service/reconnect")
    assert of_service.status_code == 422


def test_a_link_that_the_product_has_to_make_is_offered_nowhere_else(sqlite_console: ConsoleApp) -> None:
    console = sqlite_console
    console.lose("acc-acme.ada")
    console.house.give_secret("gh")
    demands = update(provider_connections).values(config={"confirm": "true"})
    console.house.database.write(lambda c: c.execute(demands).rowcount)
    operator = console.at(Role.OPERATOR)
    page = operator.client.get("/console/accounts/acc-acme.ada").text
    assert ("Make a link" in page, "in your product, which makes the link" in page) == (False, True)
    assert operator.sends("/console/accounts/acc-acme.ada/reconnect").status_code == 422
    rows = console.house.database.read(
        lambda c: facts.all_told(c, tenant_views.accounts_page(c, Tenants.of("acme"), EVERY).rows)
    )
    assert {row["id"]: row["next"] for row in rows} == {
        "acc-acme.ada": "their next visit in your product, which makes the link (POST /v1/connect-links)",
        "acc-acme.service": None,
    }


def test_revoking_waits_for_nobodys_turn(sqlite_console: ConsoleApp) -> None:
    operator, id = sqlite_console.at(Role.OPERATOR), sqlite_console.house.ids("rev")
    form = {"kind": "user", "key": "acme.ada", "typed": "acme.ada", "reason": "she left", "id": id}
    with turn_taken(sqlite_console.database):
        answer = operator.sends("/console/revoke", **form)
    assert answer.headers["Location"] == f"/console/revocations/{id}?done=revoked"


def test_revoking_shows_first_what_it_would_stop_and_wants_to_be_meant(console: ConsoleApp) -> None:
    job, operator = console.waiting(), console.at(Role.OPERATOR)
    shown = operator.sees("/console/revoke?kind=user&key=acme.ada")
    assert "Nothing is revoked yet" in shown
    assert "Unfinished jobs that stop</dt><dd>1<" in shown
    (id,) = re.findall(r'name="id" value="(rev_\w+)"', shown)
    form = {"kind": "user", "key": "acme.ada", "reason": "she left", "id": id}
    assert operator.sends("/console/revoke", **form).status_code == 422
    assert operator.sends("/console/revoke", **form, typed="acme").status_code == 422
    assert console.rows(select(scopes)) == []
    counted = REGISTRY.get_sample_value("aswhom_revocation_effective_seconds_count") or 0
    answer = operator.sends("/console/revoke", **form, typed="acme.ada")
    assert REGISTRY.get_sample_value("aswhom_revocation_effective_seconds_count") == counted + 1
    (row,) = console.rows(select(revocations))
    assert answer.headers["Location"] == f"/console/revocations/{row.id}?done=revoked"
    assert row.id == id
    assert (row.requested_by, row.reason, row.source, row.tenant_id) == (BY, "she left", "console", "acme")
    assert row.barred == NAMES, "none of whom approves its compensations"
    assert console.ring.rung == [row.id]
    assert console.state(job) is JobState.WAITING, "the rest is the revocations worker's"
    again = operator.sends("/console/revoke", **form, typed="acme.ada")
    assert (again.status_code, again.headers["Location"]) == (303, answer.headers["Location"]), "a double click"
    for odd in ({"key": "acme.bob"}, {"id": "rev_1"}, {"id": ""}):
        refused = operator.sends("/console/revoke", **{**form, **odd, "typed": odd.get("key", "acme.ada")})
        assert refused.status_code == 422
    assert len(console.rows(select(revocations))) == 1
    scope, late = Scope(kind=ScopeKind.USER, key="acme.ada"), row.effective_at + timedelta(minutes=2)
    cause = Cause(source="console", by=BY, reason="")
    once_more = partial(revoke_once, scope=scope, cause=cause, id=id, tenant="acme", now=late)
    with pytest.raises(BadInput, match="open it again to revoke anew"):  # she may have consented since
        console.database.write(once_more)


def test_the_form_that_revokes_is_there_though_what_it_would_stop_cannot_be_read(
    sqlite_console: ConsoleApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_slow(*_: object, **__: object) -> None:
        raise Unavailable("a statement took too long, and the ledger's server ended it")

    monkeypatch.setattr("pipeline.revoker.preview.steps_to_undo", too_slow)
    operator = sqlite_console.at(Role.OPERATOR)
    shown = operator.sees("/console/revoke?kind=user&key=acme.ada")
    assert "could not be read just now" in shown
    (id,) = re.findall(r'name="id" value="(rev_\w+)"', shown)
    answer = operator.sends("/console/revoke", kind="user", key="acme.ada", id=id, typed="acme.ada")
    assert answer.status_code == 303


@pytest.mark.parametrize("kind", ["tenant", "user", "connection", "account", "agent"])
def test_whoever_may_for_one_tenant_learns_nothing_of_what_others_have(sqlite_console: ConsoleApp, kind: str) -> None:
    theirs = {
        "tenant": "globex", "user": "globex.ada", "connection": "gh", "account": "globex/gh/globex.ada",
        "agent": "globex.bot",
    }[kind]  # fmt: skip
    of_acme, of_all = sqlite_console.at(Role.OPERATOR, "acme"), sqlite_console.at(Role.OPERATOR)
    for key in (theirs, "nobody"):
        assert of_acme.client.get(f"/console/revoke?kind={kind}&key={key}").status_code == 404
    assert of_all.client.get(f"/console/revoke?kind={kind}&key=nobody").status_code == 422


def test_a_receipt_can_be_taken_away_and_still_verifies(sqlite_console: ConsoleApp) -> None:
    console = sqlite_console
    ids = console.fill()
    answer = console.at(Role.AUDITOR).client.get(f"/console/revocations/{ids['revocation']}/receipt.json")
    kept = json.loads(answer.text)
    assert console.signer.verifies(kept["receipt"], kept["signature"])


def test_a_paused_connection_is_used_again_by_an_owners_word(sqlite_console: ConsoleApp) -> None:
    console = sqlite_console
    console.pause()
    assert console.at(Role.OPERATOR).sends("/console/connections/gh/resume").status_code == 403
    assert console.at(Role.OWNER).sends("/console/connections/gh/resume").status_code == 303
    assert [row.paused_reason for row in console.rows(select(provider_connections.c.paused_reason))] == [None]
    assert _said(console, "connection.resumed") == ["by console:owner@all"]


def test_what_is_stuck_at_a_provider_is_asked_again(sqlite_console: ConsoleApp) -> None:
    console = sqlite_console
    revocation, operator = (
        console.revoke(Scope(kind=ScopeKind.USER, key="globex.ada"), "globex"),
        console.at(Role.OPERATOR),
    )
    retry = f"/console/revocations/{revocation}/retry"
    console.stick(revocation)
    assert operator.sends(retry).status_code == 303
    assert operator.sends(retry).status_code == 422
    assert _said(console, "revocation.retried") == [f"by {BY}"]


def test_a_schedule_rests_and_goes_on(sqlite_console: ConsoleApp) -> None:
    console = sqlite_console
    schedule, operator = console.schedule(), console.at(Role.OPERATOR)
    answer = operator.sends("/console/schedules/pause", id=schedule)
    assert [row.paused for row in console.rows(select(schedules.c.paused))] == [True]
    assert "acme:morning is paused." in operator.sees(answer.headers["Location"])
    operator.sends("/console/schedules/resume", id=schedule)
    assert [row.paused for row in console.rows(select(schedules.c.paused))] == [False]
    assert (_said(console, "schedule.paused"), _said(console, "schedule.resumed")) == ([f"by {BY}"], [f"by {BY}"])


def test_an_act_on_a_schedule_comes_back_to_the_list_that_it_was_sent_from(sqlite_console: ConsoleApp) -> None:
    """Whoever may see several tenants alone is shown the first of them by default."""
    console = sqlite_console
    console.schedule()
    roles = (Held(role=Role.OPERATOR, tenant=tenant) for tenant in ("aaa", "acme"))
    of_two = console.visit(*roles)
    (action,) = re.findall(r'action="(/console/schedules/pause[^"]*)"', of_two.sees("/console/schedules?tenant=acme"))
    answer = of_two.sends(action, id="acme:morning")
    assert "acme:morning is paused." in of_two.sees(answer.headers["Location"])
    assert "All</option>" not in of_two.sees("/console/schedules")


def test_a_refusal_leads_back_to_the_page_of_the_form(sqlite_console: ConsoleApp) -> None:
    console = sqlite_console
    job, operator = console.in_doubt(), console.at(Role.OPERATOR)
    for path, back in (
        (f"jobs/{job}/replay", f"jobs/{job}"),
        ("revoke?kind=user&key=acme.ada", "revoke?kind=user&amp;key=acme.ada"),
        ("dead/replay?tenant=acme", "dead?tenant=acme"),
    ):
        refused = operator.sends(f"/console/{path}")
        assert (refused.status_code, f'href="/console/{back}">Back to it' in refused.text) == (422, True), path
    assert "Back to it" not in operator.sends("/console/jobs/job_x/cancel").text, "there is no such page"


def test_whose_session_is_over_as_they_act_is_told_so_and_comes_back_to_the_page(sqlite_console: ConsoleApp) -> None:
    job = sqlite_console.waiting()
    nobody = sqlite_console.app.test_client()
    answer = nobody.post(f"/console/jobs/{job}/cancel")
    assert f"next=/console/jobs/{job}" in answer.headers["Location"]
    assert "You were signed out: nothing was done." in nobody.get(answer.headers["Location"]).text
    assert "signed out" not in nobody.get("/console/sign-in").text
    assert sqlite_console.state(job) is JobState.WAITING


class Lost:
    """A ledger that does what it is asked, and does not say so."""

    def __init__(self, ledger: Store, error: Exception) -> None:
        self.read = ledger.read
        self._ledger = ledger
        self._error = error

    def write(self, fn: Callable[[Connection], T]) -> T:
        self._ledger.write(fn)
        raise self._error


@pytest.mark.parametrize(
    "error", [CommitUnknown("canary-77"), Unconfirmed("canary-77")], ids=lambda one: type(one).__name__
)
def test_an_act_that_the_ledger_did_not_confirm_is_not_called_undone(
    sqlite_console: ConsoleApp, error: Exception
) -> None:
    console = sqlite_console
    job = console.waiting()
    operator = console.visit(Held(role=Role.OPERATOR, tenant=None), app=console.over(Lost(console.database, error)))
    answer = operator.sends(f"/console/jobs/{job}/cancel")
    assert (answer.status_code, console.state(job)) == (503, JobState.CANCELLED)
    assert "It is not certain whether it was done" in answer.text
    assert "canary" not in answer.text
