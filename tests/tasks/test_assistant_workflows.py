"""The DevOps assistant in full, in a worker's runtime, and who did what by the upstreams' own logs."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select, update

from identity.principals import link_alias
from pipeline.states import JobState, StepState
from pipeline.tables import jobs, workflow_settings
from tests.tasks.faults import REFUSALS
from tests.tasks.in_process_system import InProcessSystem

REPO = "acme/shop"
APP = "aswhom-sandbox"
ISSUE = ("linear", "ada", "user")
COMMENT = ("github", "ada", "user")


def bot(system: InProcessSystem) -> tuple[str, str, str]:
    return ("slack", str(system.sandbox.world["slack"]["workspaces"][0]["bot_user_id"]), "bot")


def messages(system: InProcessSystem) -> list[str]:
    ours = {attempt.id for attempt in system.attempts()}
    return [one["text"] for one in system.sandbox.read("slack", "messages") if one["attempt"] in ours]


def columns(system: InProcessSystem, number: int) -> list[str]:
    """Where Linear has the issues of a pull request."""
    query = "query($t: String!) { issues(filter: { title: { startsWith: $t } }) { nodes { state { type } } } }"
    token = system.sandbox.app_token("acme")
    answer = system.sandbox.linear(token, query, t=f"{REPO}#{number}: ").json()
    return [issue["state"]["type"] for issue in answer["data"]["issues"]["nodes"]]


def settled(system: InProcessSystem) -> None:
    assert {(job.state, job.reason) for job in system.settle() if job.state != JobState.DONE} == set()


def tracked(system: InProcessSystem, author: str = "ada") -> int:
    """A pull request whose label filed an issue."""
    system.connect_engineer("acme", author)
    number = system.pull(REPO, author, "bug")
    settled(system)
    return number


def test_a_merge_finishes_the_issues_as_whoever_merged(system: InProcessSystem) -> None:
    number = tracked(system)
    assert system.authors() == [COMMENT, ISSUE, bot(system)]
    system.connect_engineer("acme", "grace")
    system.told(REPO, number, "merge", by="grace")
    settled(system)
    assert system.authors() == [COMMENT, ISSUE, ("linear", "grace", "user"), bot(system), bot(system)]
    assert f"{REPO}#{number}> was merged by grace, which closes <" in messages(system)[-1]
    (look,) = [step for step in system.steps() if step.action == "linear.FindIssuesOfPull"]
    assert [issue["done"] for issue in look.result["issues"]] == [False]


def test_a_merge_leaves_alone_what_a_person_filed_under_such_a_title(system: InProcessSystem) -> None:
    number = tracked(system)
    (team, *_) = system.sandbox.world["linear"]["organizations"][0]["teams"]
    page = f"https://github.com/{REPO}/pull/{number}"
    fields = {"teamId": team["id"], "title": f"{REPO}#{number}: after it", "description": f"Follows {page}"}
    create = "mutation($input: IssueCreateInput!) { issueCreate(input: $input) { success } }"
    assert "errors" not in system.sandbox.linear(system.sandbox.app_token("acme"), create, input=fields).json()
    system.told(REPO, number, "merge", by="ada")
    settled(system)
    assert [step.action for step in system.steps()].count("linear.MoveIssue") == 1
    assert system.authors().count(("linear", "ada", "user")) == 2  # filed, and moved


def test_a_merge_by_nobody_we_know_finishes_them_as_the_workspace(system: InProcessSystem) -> None:
    number = tracked(system)
    system.told(REPO, number, "merge", by="stranger")
    settled(system)
    assert ("linear", APP, "app") in system.authors()


def test_a_closed_pull_request_that_was_not_merged_changes_nothing(system: InProcessSystem) -> None:
    number = tracked(system)
    before = len(system.jobs())
    made = system.sandbox.order("github", f"pulls/{REPO}/{number}/merge", by="ada", hold=True)
    document = system.held(made["deliveries"][0])
    document["pull_request"]["merged"] = False
    system.deliver("github", "pull_request", document, through="github", installation="9001")
    assert len(system.jobs()) == before


def test_a_job_for_one_that_was_not_merged_does_nothing(system: InProcessSystem) -> None:
    """Accepted before the trigger had its filter, or started by hand."""
    number = system.pull(REPO, "ada")
    made = system.sandbox.order("github", f"pulls/{REPO}/{number}/merge", by="ada", hold=True)
    system.github("pull_request", made["deliveries"][0])
    unmerged = func.json_set(jobs.c.event, "$.merged", False)
    closing = update(jobs).where(jobs.c.workflow == "close_issues").values(event=unmerged)
    assert system.runtime.database.write(lambda c: c.execute(closing).rowcount) == 1
    settled(system)
    assert [step.action for step in system.steps()] == ["github.GetPull"]


def test_an_issue_filed_after_the_merge_is_finished_by_whoever_filed_it(system: InProcessSystem) -> None:
    """Linear was away while the pull request was merged: there was nothing yet to close."""
    system.connect_engineer("acme", "ada")
    system.sandbox.order("linear", "faults", mode="status", status=503, endpoint="issueCreate", times=1)
    number = system.pull(REPO, "ada", "bug")
    system.work_once()
    assert system.authors() == []
    system.told(REPO, number, "merge", by="grace")
    settled(system)
    assert columns(system, number) == ["completed"]
    assert Counter(system.authors()) == Counter([COMMENT, ISSUE, ISSUE, bot(system), bot(system)])


def test_a_rule_that_is_mended_files_the_issue_of_the_job_that_died_of_it(system: InProcessSystem) -> None:
    system.connect_engineer("acme", "ada")
    mine = workflow_settings.c.workflow == "link_pull_request"
    (right,) = system.rows(select(workflow_settings.c.config).where(mine, workflow_settings.c.tenant_id == "acme"))
    rules = {**right.config["label_rules"], "bug": {**right.config["label_rules"]["bug"], "team_id": "no-team"}}

    def configure(config: dict[str, Any]) -> None:
        change = update(workflow_settings).where(mine).values(config=config)
        system.runtime.database.write(lambda c: c.execute(change).rowcount)

    configure({"label_rules": rules})
    number = system.pull(REPO, "ada", "bug")
    dead = [job for job in system.settle() if job.state == JobState.DEAD]
    assert [job.workflow for job in dead] == ["link_pull_request"]
    configure(right.config)
    system.replay_the_dead()
    settled(system)
    assert len(columns(system, number)) == 1


def test_a_label_that_is_refused_until_after_the_merge_is_filed_and_finished_by_the_replay(
    system: InProcessSystem,
) -> None:
    system.connect_engineer("acme", "ada")
    system.sandbox.order("linear", "faults", endpoint="issueCreate", **REFUSALS["linear"])
    opened = system.sandbox.open_pull(REPO, "ada", labels=["bug", "infra"], hold=True)
    system.github("pull_request", opened["deliveries"][0])
    (job,) = system.settle()
    assert (job.state, columns(system, opened["number"])) == (JobState.DEAD, ["backlog"])
    system.told(REPO, opened["number"], "merge", by="ada")
    assert [job.state for job in system.settle()] == [JobState.DEAD, JobState.DONE]
    system.replay_the_dead()
    settled(system)
    assert columns(system, opened["number"]) == ["completed"] * 2
    assert len(messages(system)) == 3  # of each issue, and of the merge


def test_an_issue_that_cannot_be_moved_keeps_no_other_from_it_and_the_channel_is_told(system: InProcessSystem) -> None:
    system.connect_engineer("acme", "ada")
    number = system.pull(REPO, "ada", "bug", "infra")
    settled(system)
    refused = {"endpoint": "issueUpdate", **REFUSALS["linear"]}
    system.sandbox.order("linear", "faults", **refused)
    system.told(REPO, number, "merge", by="ada")
    (job,) = [job for job in system.settle() if job.state != JobState.DONE]
    assert (job.workflow, job.state) == ("close_issues", JobState.DEAD)
    moves = [step.state for step in system.steps() if step.action == "linear.MoveIssue"]
    assert moves == [StepState.FAILED, StepState.DONE]
    told = messages(system)
    assert " was merged by ada, which closes <" in told[-1]
    system.replay_the_dead()
    settled(system)
    assert columns(system, number) == ["completed"] * 2
    assert messages(system) == told


def test_a_review_request_is_announced_once(system: InProcessSystem) -> None:
    number = system.pull(REPO, "ada")
    system.told(REPO, number, "review_requests", reviewer="grace")
    settled(system)
    assert system.authors() == [bot(system)]
    assert messages(system)[0].endswith("waits for a review by grace, asked for by ada")


def test_a_team_that_shall_review_is_announced_by_its_name(system: InProcessSystem) -> None:
    number = system.pull(REPO, "ada")
    system.told(REPO, number, "review_requests", team="Back & Front")
    settled(system)
    assert messages(system)[0].endswith("waits for a review by the team Back &amp; Front, asked for by ada")


def test_a_command_tracks_a_pull_request_as_whoever_wrote_it(system: InProcessSystem) -> None:
    """The author is a stranger; grace asks for the issue, and it is hers."""
    system.connect_engineer("acme", "grace")
    opened = system.sandbox.open_pull(REPO, "stranger", labels=["bug"], hold=True)
    system.told(REPO, opened["number"], "comments", "issue_comment", author="grace", body="/aswhom link")
    settled(system)
    assert system.authors() == [("github", "grace", "user"), ("linear", "grace", "user"), bot(system)]


def test_a_command_for_a_label_without_a_rule_is_answered(system: InProcessSystem) -> None:
    system.connect_engineer("acme", "grace")
    opened = system.sandbox.open_pull(REPO, "ada", labels=["docs"], hold=True)
    system.told(REPO, opened["number"], "comments", "issue_comment", author="grace", body="/aswhom link docs")
    settled(system)
    assert system.authors() == [("github", "grace", "user")]


def test_a_strangers_command_does_nothing(system: InProcessSystem) -> None:
    opened = system.sandbox.open_pull(REPO, "ada", labels=["bug"], hold=True)
    system.told(REPO, opened["number"], "comments", "issue_comment", author="stranger", body="/aswhom link")
    settled(system)
    assert system.steps() == []


def test_talk_about_the_command_is_no_command(system: InProcessSystem) -> None:
    opened = system.sandbox.open_pull(REPO, "ada", labels=["bug"], hold=True)
    for said in ("write /aswhom link to track it", "/aswhom linked", "> /aswhom link", "/aswhomlink"):
        system.told(REPO, opened["number"], "comments", "issue_comment", author="ada", body=said)
    assert system.jobs() == []


def typed(system: InProcessSystem, text: str, *, user: str = "U0ADA") -> None:
    workspace = system.sandbox.world["slack"]["workspaces"][0]
    fields: dict[str, Any] = {
        "team_id": workspace["team_id"],
        "channel_id": workspace["channels"][0]["id"],
        "user_id": user,
        "command": "/aswhom",
        "text": text,
    }
    system.deliver("slack", "command", fields, through="slack", installation=workspace["team_id"])


def known_in_slack(system: InProcessSystem, user: str, principal: str) -> None:
    system.runtime.database.write(
        lambda c: link_alias(
            c,
            tenant="acme",
            provider="slack",
            external_id=user,
            principal=principal,
            login=None,
            made_by="admin:test",
            now=datetime.now(UTC),
        )
    )


def test_a_slash_command_files_an_issue_as_whoever_typed_it(system: InProcessSystem) -> None:
    system.connect_engineer("acme", "ada")
    known_in_slack(system, "U0ADA", "acme.ada")
    typed(system, "issue R&amp;D: the &lt;login&gt; page is slow")  # Slack escapes what people type
    settled(system)
    assert system.authors() == [ISSUE, bot(system)]
    (job,) = system.jobs()
    assert (job.user_id, job.triggered_by, job.pattern) == ("acme.ada", "slack:U0ADA", "hybrid")
    assert messages(system)[0].endswith("> R&amp;D: the &lt;login&gt; page is slow")
    (filed, _) = system.steps()
    assert filed.parameters["title"] == filed.parameters["description"] == "R&D: the <login> page is slow"


def test_a_slash_command_of_nobody_we_know_files_nothing_and_says_nothing_to_the_channel(
    system: InProcessSystem,
) -> None:
    typed(system, "issue The login page is slow")
    settled(system)
    assert (len(system.jobs()), system.authors(), messages(system)) == (1, [], [])


def test_other_words_after_the_command_start_nothing(system: InProcessSystem) -> None:
    typed(system, "help")
    assert system.jobs() == []
