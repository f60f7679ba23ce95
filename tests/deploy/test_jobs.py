"""What the command line tells of a job, and what an operator may do to one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, update

from deploy.installation import Installation
from deploy.settings import load
from pipeline.authoring.registry import Registry
from pipeline.jobs.new_jobs import NewJob, insert_job
from pipeline.states import AttemptState, StepState, Wait
from pipeline.tables import attempts, jobs
from pipeline.views.dead_letters import MOST
from pipeline.views.operator_queries import compensation_of
from tests.console.console_app import ConsoleApp
from tests.deploy.conftest import Cli
from tests.ledger.acts import close, done, open_, revoke
from tests.ledger.house import account_scope
from tests.ledger.house import intent_of as intent
from tests.ledger.revokers import quiet_revoker
from tests.ledger.undoing import house_that_undoes, say_and_undo


@pytest.fixture
def job(cli: Cli) -> str:
    """A job that is queued and never run."""
    cli.json("tenants", "add", "acme")
    with Installation(load(data_dir=cli.data_dir)) as at:
        now = at.now()
        workflow = at.workflows.get("link_pull_request")
        at.write(
            lambda c: insert_job(
                c,
                NewJob(
                    id="job_1",
                    tenant="acme",
                    workflow=workflow,
                    triggered_by="ada",
                    event={},
                    config={},
                ),
                now=now,
            )
        )
    return "job_1"


def test_a_job_is_told_in_sentences(cli: Cli, job: str) -> None:
    told = cli("jobs", "show", job).output
    assert "link_pull_request for acme by agent devops-assistant, queued" in told
    assert "Started by ada" in told
    assert cli.json("jobs", "show", job)["steps"] == []
    assert [row["id"] for row in cli.json("jobs", "list", "--tenant", "acme", "--state", "queued")] == [job]
    assert cli.json("jobs", "list", "--state", "done") == []
    assert cli.json("policy", "explain", job) == []
    assert "no step 1" in cli.json("policy", "explain", job, "1", code=1)["message"]


def test_one_that_retention_has_forgotten_is_told_as_that(cli: Cli, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.json("jobs", "cancel", job, "--yes")
    with Installation(load(data_dir=cli.data_dir)) as at:
        old = update(jobs).values(finished_at=at.now() - timedelta(days=500), created_at=at.now() - timedelta(days=500))
        at.write(partial(Connection.execute, statement=old))
    assert "there is no job nosuch: " in cli.json("jobs", "show", "nosuch", code=1)["message"]
    monkeypatch.setenv("ASWHOM_KEEP_JOBS", "400")
    assert cli.json("db", "prune", "--yes")["jobs"] == 1
    told = cli.json("jobs", "show", job, code=1)["message"]
    assert told.startswith(f"job {job} was forgotten by retention: jobs that ended before ")
    assert "ASWHOM_KEEP_JOBS" in told
    assert cli.json("jobs", "list") == []


def test_a_cancelled_job_is_cancelled_once_and_can_be_replayed(cli: Cli, job: str) -> None:
    assert cli("jobs", "cancel", job).exit_code == 2  # it asks first
    assert cli.json("jobs", "cancel", job, "--yes")["state"] == "cancelled"
    assert cli.json("jobs", "cancel", job, "--yes")["state"] == "cancelled"
    assert len(cli.json("audit", "search", "--kind", "job.cancelled")) == 1
    assert cli("jobs", "replay", job).exit_code == 2  # it asks first
    before = cli.json("jobs", "show", job)["accepted"]
    assert cli.json("jobs", "replay", job, "--yes")["state"] == "queued"
    assert cli.json("jobs", "show", job)["accepted"] > before
    assert cli.json("jobs", "replay", job, "--yes", code=1)["error"] == "BadInput"
    assert {row["kind"] for row in cli.json("audit", "search", "--kind", "job")} == {"job.cancelled", "job.replayed"}


@pytest.mark.usefixtures("job")
def test_what_no_job_can_be_of_is_told(cli: Cli) -> None:
    assert "no workflow is named 'triag': known are " in cli("jobs", "list", "--workflow", "triag").stderr
    assert "there is no tenant acm: " in cli("jobs", "list", "--tenant", "acm").stderr
    assert cli("jobs", "list", "--workflow", "link_pull_request", "--state", "done").stderr == ""


def test_there_is_nothing_to_resolve_where_every_call_has_its_outcome(cli: Cli, job: str) -> None:
    assert cli.json("jobs", "resolve", job, "--no-effect", "--yes", code=1)["error"] == "BadInput"


class Terminal(BytesIO):
    """A person at a terminal who types a line; something happens while she thinks."""

    def __init__(self, line: str, *, meanwhile: Callable[[], None]) -> None:
        super().__init__(f"{line}\n".encode())
        self._meanwhile = meanwhile

    def isatty(self) -> bool:
        return True

    def read1(self, size: int | None = -1, /) -> bytes:
        self._meanwhile()
        return super().read1(size)


def call_of(cli: Cli, job: str) -> str:
    """The one call of the job that is in doubt."""
    (step,) = cli.json("jobs", "show", job)["steps"]
    (call,) = (one["id"] for one in step["attempts"] if one["state"] == "unknown")
    return str(call)


def _another_call(cli: Cli, job: str) -> None:
    """Somebody settled the call; it was sent again, and what became of that is not known either."""
    with Installation(load(data_dir=cli.data_dir)) as at:
        console = ConsoleApp(at.ledger, built=True)
        console.in_doubt_again(job)
        console.close()


@pytest.fixture
def in_doubt(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> str:
    """A job that waits for a person's word about its one call."""
    monkeypatch.setenv("ASWHOM_WORKFLOWS", "tests.ledger.house")
    with Installation(load(data_dir=cli.data_dir)) as at:
        console = ConsoleApp(at.ledger)
        made = console.in_doubt()
        console.close()
    return made


def test_a_step_of_a_job_says_as_whom_by_which_pattern_and_why(cli: Cli, in_doubt: str) -> None:
    told = [line.split() for line in cli("jobs", "show", in_doubt).output.splitlines()]
    assert ["step", "action", "as", "whom", "pattern", "state", "attempts", "why"] in told
    why = ["named", "by", "the", "workflow"]
    assert ["1", "github.Say", "user", "ada", "delegated", "unknown", "unknown", *why] in told
    (step,) = cli.json("jobs", "show", in_doubt)["steps"]
    assert (step["principal_id"], step["pattern"], step["reason"]) == ("acme.ada", "delegated", "named by the workflow")


def test_a_revocation_without_a_receipt_says_which_calls_it_waits_for(cli: Cli, in_doubt: str) -> None:
    with Installation(load(data_dir=cli.data_dir)) as at:
        at.write(lambda c: c.execute(update(attempts).values(opened=1)))  # before it is revoked
    made = cli.json("revoke", "user", "acme.ada", "--yes")["id"]
    (call,) = cli.json("revocations", "show", made)["in_flight"]
    assert (call["job"], call["principal"], call["state"]) == (in_doubt, "acme.ada", "unknown")
    assert call["attempt"] in cli("revocations", "show", made).output


def test_a_job_that_a_revocation_stopped_in_the_middle_is_told_step_by_step(cli: Cli) -> None:
    with Installation(load(data_dir=cli.data_dir)) as at:
        house = house_that_undoes(at.ledger)
        stopped = house.claim(house.job())
        asked, lost = (intent(house, stopped, position=place, occurrence=place) for place in (1, 2))
        open_(house, asked)
        done(house, asked)
        open_(house, lost)
        close(house, lost, AttemptState.UNKNOWN, StepState.UNKNOWN)
        made = revoke(house, account_scope())
        open_(house, intent(house, stopped, position=3, occurrence=3))
        assert quiet_revoker(at.ledger, at.signer, Registry([say_and_undo])).advance(made)
        (followed,) = at.read(lambda c: compensation_of(c, stopped.id))
    told = cli("jobs", "show", stopped.id).output.splitlines()
    look = f"look, then `aswhom jobs resolve {stopped.id} --call {lost.attempt}`"
    about = told.index("It stopped before it finished:")
    (first, second, third, compensated) = told[about + 1 : about + 5]
    assert first == "  step 1, github.Say, took effect, as user ada."
    assert second == f"  step 2, github.Say, was sent, and whether it took effect is unknown: {look}."
    assert third.startswith(f"  step 3, github.Say, was refused and never sent: {account_scope()} was revoked since ")
    assert compensated == f"Step 1 is being compensated by {followed['job_id']}."


def test_a_word_is_about_the_calls_of_one_step(cli: Cli) -> None:
    with Installation(load(data_dir=cli.data_dir)) as at:
        house = house_that_undoes(at.ledger)
        stopped = house.claim(house.job())
        first, second = (intent(house, stopped, position=place, occurrence=place) for place in (1, 2))
        for lost in (first, second):
            open_(house, lost)
            close(house, lost, AttemptState.UNKNOWN, StepState.UNKNOWN)
        revoke(house, account_scope())
        open_(house, intent(house, stopped, position=3, occurrence=3))
    told = cli("jobs", "show", stopped.id).output
    for lost in (first, second):
        assert f"look, then `aswhom jobs resolve {stopped.id} --call {lost.attempt}`." in told
    unnamed = cli.json("jobs", "resolve", stopped.id, "--no-effect", code=1)["message"]  # whoever looked for the second
    for place, lost in ((1, first), (2, second)):
        assert f"step {place}, github.Say: `aswhom jobs resolve {stopped.id} --call {lost.attempt}`" in unnamed
    both = ("--call", first.attempt, "--call", second.attempt)
    refused = cli.json("jobs", "resolve", stopped.id, "--no-effect", "--yes", *both, code=1)["message"]
    assert f"step 1, github.Say: {first.attempt}; step 2, github.Say: {second.attempt}" in refused
    said = cli("jobs", "resolve", stopped.id, "--no-effect", "--yes", "--call", second.attempt)
    assert said.stdout == f"the call of {stopped.id} had no effect; the job stays cancelled\n"
    states = [step["attempts"][0]["state"] for step in cli.json("jobs", "show", stopped.id)["steps"][:2]]
    assert states == ["unknown", "no_effect"]


def test_a_word_about_a_call_without_effect_lets_its_job_go_on(cli: Cli, in_doubt: str) -> None:
    assert cli("jobs", "resolve", in_doubt).exit_code == 2  # it has to be said which
    both = cli("jobs", "resolve", in_doubt, "--effect", "--no-effect", "--yes", "--call", call_of(cli, in_doubt))
    assert (both.exit_code, "give either --effect or --no-effect" in both.output) == (2, True)
    assert cli("jobs", "resolve", in_doubt, "--no-effect", "--result", "-", input="{}").exit_code == 2
    asked = cli("jobs", "resolve", in_doubt, "--no-effect")
    assert asked.exit_code == 2
    assert f"(call {call_of(cli, in_doubt)}) had no effect? This cannot be undone." in asked.output
    which = ("--call", call_of(cli, in_doubt))
    unnamed = cli.json("jobs", "resolve", in_doubt, "--no-effect", "--yes", code=1)["message"]
    assert f"`aswhom jobs resolve {in_doubt} {' '.join(which)}`" in unnamed
    said = cli("jobs", "resolve", in_doubt, *which, "--no-effect", "--yes")
    assert (said.exit_code, said.stdout) == (0, f"the call of {in_doubt} had no effect; the job goes on\n")
    assert cli.json("jobs", "show", in_doubt)["state"] == "queued"
    assert "does not wait" in cli.json("jobs", "resolve", in_doubt, "--no-effect", "--yes", code=1)["message"]


def test_a_word_about_a_call_with_effect_says_what_its_step_returns(cli: Cli, in_doubt: str) -> None:
    effect = ("jobs", "resolve", in_doubt, "--effect", "--yes", "--call", call_of(cli, in_doubt))
    assert "give --result with id" in cli.json(*effect, code=1)["message"]
    said = cli.json(*effect, "--result", "-", input='{"id": "say-1"}')
    assert said == {"id": in_doubt, "effect": True, "revocations": []}
    (step,) = cli.json("jobs", "show", in_doubt)["steps"]
    assert (step["state"], step["result"]) == ("done", {"id": "say-1"})


def test_a_word_closes_the_call_that_was_looked_at_and_no_later_one(cli: Cli, in_doubt: str, tmp_path: Path) -> None:
    looked_at = call_of(cli, in_doubt)
    assert f"`aswhom jobs resolve {in_doubt} --call {looked_at}`" in cli("jobs", "show", in_doubt).output
    result = tmp_path / "result.json"
    result.write_text('{"id": "say-1"}')
    effect = ("jobs", "resolve", in_doubt, "--effect", "--result", str(result))

    told = cli(*effect, input=Terminal("y", meanwhile=partial(_another_call, cli, in_doubt)))
    assert (told.exit_code, "asks about another call by now" in told.output) == (1, True)
    assert looked_at in told.output  # it was asked about

    told = cli.json(*effect, "--call", looked_at, "--yes", code=1)
    assert "asks about another call by now" in told["message"]
    later = call_of(cli, in_doubt)
    assert later != looked_at
    cli.json(*effect, "--call", later, "--yes")
    assert cli.json("jobs", "show", in_doubt)["state"] == "queued"


def test_of_several_calls_in_doubt_each_that_was_looked_at_is_named(cli: Cli, in_doubt: str) -> None:
    _another_call(cli, in_doubt)
    with Installation(load(data_dir=cli.data_dir)) as at:
        at.write(lambda c: c.execute(update(attempts).values(state="unknown", closed=None)))
    (step,) = cli.json("jobs", "show", in_doubt)["steps"]
    first, second = (f"--call {one['id']}" for one in step["attempts"])
    told = cli.json("jobs", "resolve", in_doubt, "--no-effect", "--yes", code=1)["message"]
    assert f"`aswhom jobs resolve {in_doubt} {first} {second}`" in told
    cli.json("jobs", "resolve", in_doubt, "--no-effect", "--yes", *first.split(), *second.split())
    assert cli.json("jobs", "show", in_doubt)["state"] == "queued"


@pytest.mark.usefixtures("job")
def test_a_revocation_says_how_much_depends_on_it(cli: Cli) -> None:
    asked = cli("revoke", "tenant", "acme")
    assert "1 unfinished job(s)" in asked.output


@pytest.fixture
def dead(cli: Cli, job: str) -> Cli:
    """Six dead jobs: four of one cause whose reasons name each its own job, one of another, one of another tenant."""
    cli.json("tenants", "add", "globex")
    reasons = [f"ActionFailed: github.Comment failed: 500, request {number:08d}" for number in range(4)]
    of = [("acme", reason) for reason in reasons] + [("acme", "ValueError"), ("globex", "ValueError")]
    with Installation(load(data_dir=cli.data_dir)) as at:
        at.write(partial(_bury, of=of, now=at.now()))
    return cli


def _bury(c: Connection, *, of: list[tuple[str, str]], now: datetime, prefix: str = "dead") -> None:
    (like,) = c.execute(select(jobs).where(jobs.c.id == "job_1")).mappings()
    dead = {**like, "state": "dead", "finished_at": now}
    c.execute(
        jobs.insert(),
        [{**dead, "id": f"{prefix}_{n}", "tenant_id": tenant, "reason": why} for n, (tenant, why) in enumerate(of)],
    )


def test_dead_jobs_are_grouped_by_what_killed_them(dead: Cli) -> None:
    groups = dead.json("jobs", "failures")
    assert [(group["jobs"], group["tenants"]) for group in groups] == [(4, 1), (2, 2)]
    assert groups[0]["cause"] in dead("jobs", "failures").output
    assert [group["jobs"] for group in dead.json("jobs", "failures", "--tenant", "globex")] == [1]


def test_all_of_a_cause_are_replayed_at_once_and_no_other(dead: Cli) -> None:
    cause = dead.json("jobs", "failures")[0]["cause"]
    would, more = dead.json("jobs", "replay", "--cause", cause, "--dry-run").values()
    assert not more
    assert sorted(would) == ["dead_0", "dead_1", "dead_2", "dead_3"]
    asked = dead("jobs", "replay", "--cause", cause)
    assert (asked.exit_code, "Run 4 jobs again?" in asked.output) == (2, True)
    assert sorted(dead.json("jobs", "replay", "--cause", cause, "--yes")["replayed"]) == sorted(would)
    assert [group["jobs"] for group in dead.json("jobs", "failures")] == [2]
    assert "aswhom jobs failures" in dead.json("jobs", "replay", "--cause", cause, "--yes", code=1)["message"]


def test_a_cause_of_more_jobs_than_come_back_at_once_goes_from_the_oldest_on_and_says_how(dead: Cli) -> None:
    with Installation(load(data_dir=dead.data_dir)) as at:
        at.write(partial(_bury, of=[("globex", "Many")] * (MOST + 1), now=at.now(), prefix="many"))
    cause = dead.json("jobs", "failures")[0]["cause"]
    would = dead.json("jobs", "replay", "--cause", cause, "--dry-run")
    oldest = sorted(f"many_{number}" for number in range(MOST + 1))[:MOST]
    assert (would["would_replay"], would["more"]) == (oldest, True)
    told = dead("jobs", "replay", "--cause", cause, "--dry-run").stderr
    assert f"the oldest {MOST} of that cause: repeat the command for the rest" in told


def test_a_cause_is_found_behind_more_dead_jobs_than_are_shown(dead: Cli) -> None:
    """The six are the oldest."""
    causes = [group["cause"] for group in dead.json("jobs", "failures")]
    with Installation(load(data_dir=dead.data_dir)) as at:
        at.write(partial(_bury, of=[("globex", "Many")] * MOST, now=at.now(), prefix="many"))
    (many,) = [group["cause"] for group in dead.json("jobs", "failures")]
    assert len(dead.json("jobs", "replay", "--cause", causes[0], "--yes")["replayed"]) == 4
    would = dead.json("jobs", "replay", "--cause", many, "--dry-run")
    assert (len(would["would_replay"]), would["more"]) == (MOST, False)


def test_a_cause_is_replayed_for_one_tenant_alone(dead: Cli) -> None:
    cause = dead.json("jobs", "failures", "--tenant", "globex")[0]["cause"]
    assert dead.json("jobs", "replay", "--cause", cause, "--tenant", "globex", "--yes")["replayed"] == ["dead_5"]


def test_one_that_cannot_be_replayed_holds_up_no_other(dead: Cli, job: str) -> None:
    answer = dead.json("jobs", "replay", "dead_0", job, "dead_1", "--yes", code=1)
    assert answer["replayed"] == ["dead_0", "dead_1"]
    assert "only dead and cancelled jobs" in answer["left_out"][0]


def test_what_to_replay_is_said_in_one_way(dead: Cli) -> None:
    for words in ([], ["dead_0", "--cause", "x"], ["dead_0", "--tenant", "acme"]):
        assert dead("jobs", "replay", *words, "--yes").exit_code == 2


def test_jobs_are_listed_by_what_they_wait_for(cli: Cli) -> None:
    with Installation(load(data_dir=cli.data_dir)) as at:
        console = ConsoleApp(at.ledger)
        sleeps, asks = console.waiting(Wait.TIME), console.in_doubt()
    for wait, job in (("time", sleeps), ("unknown", asks)):
        assert [row["id"] for row in cli.json("jobs", "list", "--wait", wait)] == [job]
    assert cli.json("jobs", "list", "--wait", "once") == []
    cli.json("jobs", "cancel", asks, "--yes")
    told = [(row["id"], row["state"]) for row in cli.json("jobs", "list", "--wait", "unknown")]
    assert told == [(asks, "cancelled")], "nobody has said what became of its call"
    assert cli("jobs", "list", "--wait", "for-godot").exit_code == 2
