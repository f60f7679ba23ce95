"""Every page of the console, for whoever may see everything."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import Connection, insert, select, update

from identity import audit
from identity.accounts.states import get_account
from identity.audit import Act, AsWhom, Work
from identity.console.roles import Role
from identity.model import Scope, ScopeKind
from identity.tables import accounts, grants
from pipeline.revocation.narrowing import narrow_account
from pipeline.revocation.tables import compensations, revocations
from pipeline.revoker.inquiry import SignalDoubt
from pipeline.states import Purpose, StepState
from pipeline.tables import attempts, deliveries, jobs, steps
from tests.console.console_app import ConsoleApp
from tests.heartbeats import ticked
from tests.ledger.revokers import quiet_revoker
from webhooks.console.jobs import RECORDS


def test_every_page_is_there_when_there_is_nothing_to_show(sqlite_console: ConsoleApp) -> None:
    owner = sqlite_console.at(Role.OWNER)
    for path in (
        "",
        "jobs",
        "dead",
        "queues",
        "deliveries",
        "accounts",
        "connections",
        "revocations",
        "schedules",
        "audit",
    ):
        assert "<h1>" in owner.sees(f"/console/{path}")


def test_every_page_is_there_when_there_is_something_of_everything(console: ConsoleApp) -> None:
    ids, owner = console.fill(), console.at(Role.OWNER)
    assert "<strong>dead job</strong>" in owner.sees("/console/")
    for path, says in (
        (f"jobs/{ids['job']}", "req-2"),
        (f"jobs/{ids['waiting']}", "somebody’s consent"),
        ("dead", "The provider answers 500."),
        ("queues", "delegated"),
        (f"deliveries/{ids['delivery']}", "held"),
        (f"deliveries/{ids['delivery']}", "what does not verify is refused, counted and not kept"),
        (f"accounts/{ids['account']}", "Make a link"),
        ("connections/gh", "every tenant’s"),
        (f"revocations/{ids['revocation']}", "The signature holds"),
        ("schedules", "acme:morning"),
        ("audit", "revocation.effective"),
    ):
        assert says in owner.sees(f"/console/{path}"), path


def _change(c: Connection, *, job: str, values: Mapping[str, object]) -> None:
    c.execute(update(jobs).where(jobs.c.id == job).values(**values))


@pytest.mark.parametrize("query", [b"\xff", b"state=%ff", b"user=\xc3"])
def test_a_query_that_is_no_text_is_answered_with_a_page(sqlite_console: ConsoleApp, query: bytes) -> None:
    owner = sqlite_console.at(Role.OWNER).client
    answer = owner.get("/console/jobs", environ_overrides={"QUERY_STRING": query.decode("latin-1")})
    assert answer.status_code == (422 if query.startswith(b"state") else 200)
    stranger = sqlite_console.app.test_client()
    answer = stranger.get("/console/jobs", environ_overrides={"QUERY_STRING": query.decode("latin-1")})
    assert answer.status_code == 303


def test_a_job_says_what_started_it(sqlite_console: ConsoleApp) -> None:
    owner, job = sqlite_console.at(Role.OWNER), sqlite_console.done()
    told: tuple[tuple[Mapping[str, object], str], ...] = (
        ({"triggered_login": "octocat"}, "Started by octocat (github:1001)"),
        ({"triggered_login": None, "triggered_by": "octocat"}, "Started by octocat"),
        ({"triggered_by": None}, "Started by a delivery"),
        ({"delivery_id": None}, "Started by a schedule, an operator, or what became of another job"),
        ({"request_id": "req_7"}, "Started by request req_7 of the agent"),
        ({"workflow": "triage.compensation"}, "Started by a revocation, which wants compensated what another job did"),
    )
    for values, says in told:
        sqlite_console.database.write(partial(_change, job=job, values=values))
        seen = owner.sees(f"/console/jobs/{job}")
        assert says in seen


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (StepState.DONE, "Its result is that of step <code>step_9</code> of another job"),
        (StepState.REFUSED, "Its once key is that of step <code>step_9</code>"),
    ],
)
def test_a_step_that_another_came_before_says_what_it_has_of_that(
    sqlite_console: ConsoleApp, state: StepState, says: str
) -> None:
    owner, job = sqlite_console.at(Role.OWNER), sqlite_console.done()
    moved = update(steps).where(steps.c.job_id == job).values(state=state, adopted_from="step_9")
    sqlite_console.database.write(lambda c: c.execute(moved).rowcount)
    page = owner.sees(f"/console/jobs/{job}")
    assert says in page
    assert page.count("step_9") == 1


def test_a_read_before_a_replay_is_not_shown_as_the_effect_of_what_its_step_asks_for_now(
    sqlite_console: ConsoleApp,
) -> None:
    job, operator = sqlite_console.done(), sqlite_console.at(Role.OPERATOR, "acme")
    assert "read before the replay" not in operator.sees(f"/console/jobs/{job}")
    before = update(attempts).where(attempts.c.number == 2).values(purpose=Purpose.READ_BEFORE)
    sqlite_console.database.write(lambda c: c.execute(before).rowcount)
    assert operator.sees(f"/console/jobs/{job}").count(".2</code> (read before the replay)</th>") == 1


def test_a_job_whose_compensation_failed_says_which_job_that_was(sqlite_console: ConsoleApp) -> None:
    owner, job = sqlite_console.at(Role.OWNER), sqlite_console.done()
    follows = sqlite_console.dead("the workspace is gone")
    (step,) = sqlite_console.rows(select(steps.c.id).where(steps.c.job_id == job))
    followed = insert(compensations).values(
        step_id=step.id,
        revocation_id=sqlite_console.revoke(Scope(kind=ScopeKind.USER, key="globex.ada"), "globex"),
        job_id=follows,
        created_at=datetime.now(UTC),
    )
    sqlite_console.database.write(lambda c: c.execute(followed).rowcount)
    assert f"{follows}</a>, which is dead" in owner.sees(f"/console/jobs/{job}")


def test_a_job_in_doubt_shows_whoever_may_resolve_it_which_call_that_is_and_what_it_sent(
    sqlite_console: ConsoleApp,
) -> None:
    job = sqlite_console.in_doubt()
    shown = sqlite_console.at(Role.OPERATOR).sees(f"/console/jobs/{job}").partition('id="acts"')[2]
    (step,) = sqlite_console.rows(select(steps.c.id))
    for says in (f"<code>{step.id}.1</code>", "Step 1, <strong>github.Say</strong>", "a &lt;secret&gt; word"):
        assert says in shown
    assert "&lt;secret&gt;" not in sqlite_console.at(Role.OPERATOR).sees(f"/console/jobs/{sqlite_console.done()}")


def test_a_job_of_more_records_than_its_page_tells_says_so(sqlite_console: ConsoleApp) -> None:
    owner, job = sqlite_console.at(Role.OWNER), sqlite_console.done()
    path = f"/console/jobs/{job}"
    assert "Of its audit only" not in owner.sees(path)

    def fill(c: Connection) -> None:
        for number in range(RECORDS + 1):
            audit.record(
                c, "job.parked", AsWhom(tenant="acme"), Work(job=job), id=f"{job}.{number}", at=datetime.now(UTC)
            )

    sqlite_console.database.write(fill)
    assert f"Of its audit only the newest {RECORDS} records" in owner.sees(path)


@pytest.mark.parametrize("state", ["needs_reconnect", "suspended"])
def test_the_overview_leads_to_the_accounts_it_counts(sqlite_console: ConsoleApp, state: str) -> None:
    owner = sqlite_console.at(Role.OWNER)
    sqlite_console.database.write(lambda c: c.execute(update(accounts).values(state=state)))
    path = f"/console/accounts?state={state}"
    assert path in owner.sees("/console/")
    assert "acc-acme.ada" in owner.sees(path)


def test_the_page_of_a_lost_account_says_why_it_cannot_be_used(sqlite_console: ConsoleApp) -> None:
    owner, path = sqlite_console.at(Role.OWNER), "/console/accounts/acc-acme.ada"
    usable = "<dt>Usable now</dt><dd>yes</dd>"
    assert usable in owner.sees(path)
    sqlite_console.lose("acc-acme.ada")
    page = owner.sees(path)
    assert usable not in page
    assert "<dt>Usable now</dt><dd>no: it was lost" in page
    assert '<td class="why">no: it was lost' in owner.sees("/console/accounts?state=needs_reconnect")


def test_the_overview_leads_to_the_job_that_asks_what_became_of_a_call(sqlite_console: ConsoleApp) -> None:
    owner, asks, other = sqlite_console.at(Role.OWNER), sqlite_console.in_doubt(), sqlite_console.waiting()
    path = "/console/jobs?wait=unknown"
    assert path in owner.sees("/console/")
    assert (asks in owner.sees(path), other in owner.sees(path)) == (True, False)
    assert other in owner.sees("/console/jobs?state=waiting&wait=consent")


def test_a_narrowing_is_listed_beside_the_revocations_and_its_page_says_what_was_taken(
    sqlite_console: ConsoleApp,
) -> None:
    console, owner = sqlite_console, sqlite_console.at(Role.OWNER)
    mine = update(grants).where(grants.c.account_id == "acc-acme.ada").values(scopes=["issues", "comments"])
    act = Act(audit_id=console.house.ids("aud"), by="cli:ops", now=console.now())

    def narrow(c: Connection) -> None:
        c.execute(mine)
        account = get_account(c, "acc-acme.ada")
        narrow_account(c, account, act, id="rev-narrow", keep=("comments",), source="cli", reason="a leak")

    console.database.write(narrow)
    assert "there is no receipt yet" in owner.sees("/console/revocations/rev-narrow")
    quiet_revoker(console.database, console.signer, console.workflows).advance("rev-narrow")
    assert "narrowing acme/gh/acme.ada" in owner.sees("/console/revocations")
    shown = owner.sees("/console/revocations/rev-narrow")
    for said in (
        '<p class="kind">Narrowing</p>',
        "<dt>Taken</dt><dd>issues</dd>",
        "<dt>Kept</dt><dd>comments</dd>",
        "Narrowed by <strong>cli:ops</strong>",
        "/console/accounts/acc-acme.ada",
        "which needed what was taken",
        "The signature holds",
        "used by nobody here",
    ):
        assert said in shown, said
    assert "Jobs cancelled" not in shown


def test_the_overview_leads_to_what_is_stuck_at_a_provider(console: ConsoleApp) -> None:
    stuck, done = (
        console.revoke(Scope(kind=ScopeKind.USER, key=f"{tenant}.ada"), tenant) for tenant in ("globex", "acme")
    )
    console.stick(stuck)
    owner, path = console.at(Role.OWNER), "/console/revocations?stuck=1"
    assert path in owner.sees("/console/")
    assert (stuck in owner.sees(path), done in owner.sees(path)) == (True, False)
    listed = owner.sees("/console/revocations")
    assert (done in listed, listed.count("stuck at the provider")) == (True, 1)


def test_where_only_what_refused_connects_had_won_is_stuck_the_page_does_not_say_that_nothing_is(
    sqlite_console: ConsoleApp,
) -> None:
    console, path = sqlite_console, "/console/revocations?stuck=1"
    owner = console.at(Role.OWNER)
    assert "Nothing is stuck" in owner.sees(path)
    for number in range(51):
        console.stick_leftover(f"connect.{number}")
    shown = owner.sees(path)
    assert ("Nothing is stuck" in shown, shown.count("<code>connect."), "There are more" in shown) == (False, 50, True)
    assert "aswhom revocations give-up" in shown


def test_the_overview_leads_to_the_deliveries_that_were_not_taken(console: ConsoleApp) -> None:
    def delivered(outcome: str) -> str:
        (job,) = console.house.accept(console.house.delivery(outcome, text=outcome)).jobs
        id: str = console.house.row(job).delivery_id
        change = update(deliveries).where(deliveries.c.id == id).values(outcome=outcome)
        console.database.write(lambda c: c.execute(change).rowcount)
        return id

    made = {outcome: delivered(outcome) for outcome in ("unrecognised", "refused", "ignored")}
    owner, path = console.at(Role.OWNER), "/console/deliveries?not_taken=1"
    assert path in owner.sees("/console/")
    listed = owner.sees(path)
    assert {outcome for outcome, id in made.items() if id in listed} == {"unrecognised", "refused"}
    assert made["ignored"] in owner.sees("/console/deliveries")


def test_the_overview_counts_no_dead_job_that_nobody_can_replay_any_more(sqlite_console: ConsoleApp) -> None:
    owner, job = sqlite_console.at(Role.OWNER), sqlite_console.dead("no")
    assert "dead job" in owner.sees("/console/")
    forget = update(jobs).where(jobs.c.id == job).values(pruned_at=datetime.now(UTC))
    sqlite_console.database.write(lambda c: c.execute(forget))
    assert "Nothing needs you." in owner.sees("/console/")


def test_the_overview_calls_a_duty_late_by_its_own_rhythm(sqlite_console: ConsoleApp) -> None:
    then = datetime.now(UTC) - timedelta(seconds=100)
    # Four times a second, and once a minute with up to ten for a tick.
    ticked(sqlite_console.database, "dispatch", "catch-up", at=then)
    shown = sqlite_console.at(Role.OWNER).sees("/console/")
    assert ("dispatch. <code>aswhom doctor" in shown, "catch-up" in shown) == (True, False)


def test_what_stands_beside_a_receipt_is_not_told_as_its_word_about_the_signal(sqlite_console: ConsoleApp) -> None:
    owner, id = sqlite_console.at(Role.OWNER), sqlite_console.fill()["revocation"]
    altered = update(revocations).where(revocations.c.id == id).values(doubt=SignalDoubt.ALIVE)
    sqlite_console.database.write(lambda c: c.execute(altered))
    shown = owner.sees(f"/console/revocations/{id}")
    assert "they differ in doubt" in shown
    assert "may connect again" not in shown


def test_a_revocation_of_many_accounts_names_those_that_are_stuck_first(sqlite_console: ConsoleApp) -> None:
    owner, id = sqlite_console.at(Role.OWNER), sqlite_console.fill()["revocation"]
    (row,) = sqlite_console.rows(select(revocations.c.receipt).where(revocations.c.id == id))
    told = [{"account": f"acc-{n}", "generation": 1, "answer": "done", "reason": ""} for n in range(59)]
    told.append({"account": "acc-stuck", "generation": 1, "answer": "stuck", "reason": ""})
    changed = {**row.receipt, "provider": {"answer": "stuck", "accounts": told}}
    change = update(revocations).where(revocations.c.id == id).values(receipt=changed)
    sqlite_console.database.write(lambda c: c.execute(change))
    shown = owner.sees(f"/console/revocations/{id}")
    assert "50 of 60 accounts" in shown
    assert shown.index("acc-stuck") < shown.index("acc-0")


def test_the_requests_for_tokens_that_were_on_the_wire_are_named(sqlite_console: ConsoleApp) -> None:
    owner, id = sqlite_console.at(Role.OWNER), sqlite_console.fill()["revocation"]
    assert "Requests for tokens on the wire" not in owner.sees(f"/console/revocations/{id}")
    (row,) = sqlite_console.rows(select(revocations.c.receipt).where(revocations.c.id == id))
    asked = {"id": "ref-1", "kind": "refresh", "account": "acc-ada", "generation": 1, "outcome": "open"}
    change = update(revocations).where(revocations.c.id == id)
    change = change.values(receipt={**row.receipt, "token_requests": [asked]})
    sqlite_console.database.write(lambda c: c.execute(change))
    shown = owner.sees(f"/console/revocations/{id}")
    assert "Requests for tokens on the wire" in shown
    assert "ref-1" in shown
