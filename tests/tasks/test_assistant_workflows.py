"""The DevOps assistant in full, in a worker's runtime, and who did what by the upstreams' own logs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from identity.principals import link_alias
from pipeline.states import JobState
from tests.tasks.town import Town

REPO = "acme/shop"
APP = "aswhom-sandbox"
ISSUE = ("linear", "ada", "user")
COMMENT = ("github", "ada", "user")


def bot(town: Town) -> tuple[str, str, str]:
    return ("slack", str(town.sandbox.world["slack"]["workspaces"][0]["bot_user_id"]), "bot")


def messages(town: Town) -> list[str]:
    ours = {attempt.id for attempt in town.attempts()}
    return [one["text"] for one in town.sandbox.read("slack", "messages") if one["attempt"] in ours]


def settled(town: Town) -> None:
    assert {(job.state, job.reason) for job in town.settle() if job.state != JobState.DONE} == set()


def tracked(town: Town, author: str = "ada") -> int:
    """A pull request whose label filed an issue."""
    town.connect_engineer("acme", author)
    number = town.pull(REPO, author, "bug")
    settled(town)
    return number


def test_a_merge_finishes_the_issues_as_whoever_merged(town: Town) -> None:
    number = tracked(town)
    assert town.authors() == [COMMENT, ISSUE, bot(town)]
    town.connect_engineer("acme", "grace")
    town.told(REPO, number, "merge", by="grace")
    settled(town)
    assert town.authors() == [COMMENT, ISSUE, ("linear", "grace", "user"), bot(town), bot(town)]
    assert messages(town)[-1].endswith("> done")
    assert f"{REPO}#{number}> was merged by grace" in messages(town)[-1]
    (look,) = [step for step in town.steps() if step.action == "linear.FindIssuesOfPull"]
    assert [issue["done"] for issue in look.result["issues"]] == [False]


def test_a_merge_by_nobody_we_know_finishes_them_as_the_workspace(town: Town) -> None:
    number = tracked(town)
    town.told(REPO, number, "merge", by="stranger")
    settled(town)
    assert ("linear", APP, "app") in town.authors()


def test_a_closed_pull_request_that_was_not_merged_changes_nothing(town: Town) -> None:
    number = tracked(town)
    made = town.sandbox.order("github", f"pulls/{REPO}/{number}/merge", by="ada", hold=True)
    document = town.held(made["deliveries"][0])
    document["pull_request"]["merged"] = False
    town.deliver("github", "pull_request", document, through="github", installation="9001")
    settled(town)
    assert len(town.authors()) == 3


def test_a_review_request_is_announced_once(town: Town) -> None:
    number = town.pull(REPO, "ada")
    town.told(REPO, number, "review_requests", reviewer="grace")
    settled(town)
    assert town.authors() == [bot(town)]
    assert messages(town)[0].endswith("waits for a review by grace, asked for by ada")


def test_a_command_tracks_a_pull_request_as_whoever_wrote_it(town: Town) -> None:
    """The author is a stranger; grace asks for the issue, and it is hers."""
    town.connect_engineer("acme", "grace")
    opened = town.sandbox.open_pull(REPO, "stranger", labels=["bug"], hold=True)
    town.told(REPO, opened["number"], "comments", "issue_comment", author="grace", body="/aswhom link")
    settled(town)
    assert town.authors() == [("github", "grace", "user"), ("linear", "grace", "user"), bot(town)]


def test_a_command_for_a_label_without_a_rule_is_answered(town: Town) -> None:
    town.connect_engineer("acme", "grace")
    opened = town.sandbox.open_pull(REPO, "ada", labels=["docs"], hold=True)
    town.told(REPO, opened["number"], "comments", "issue_comment", author="grace", body="/aswhom link docs")
    settled(town)
    assert town.authors() == [("github", "grace", "user")]


def test_a_strangers_command_does_nothing(town: Town) -> None:
    opened = town.sandbox.open_pull(REPO, "ada", labels=["bug"], hold=True)
    town.told(REPO, opened["number"], "comments", "issue_comment", author="stranger", body="/aswhom link")
    settled(town)
    assert town.steps() == []


def test_talk_about_the_command_is_no_command(town: Town) -> None:
    opened = town.sandbox.open_pull(REPO, "ada", labels=["bug"], hold=True)
    for said in ("write /aswhom link to track it", "/aswhom linked", "> /aswhom link", "/aswhomlink"):
        town.told(REPO, opened["number"], "comments", "issue_comment", author="ada", body=said)
    assert town.jobs() == []


def typed(town: Town, text: str, *, user: str = "U0ADA") -> None:
    workspace = town.sandbox.world["slack"]["workspaces"][0]
    fields: dict[str, Any] = {
        "team_id": workspace["team_id"],
        "channel_id": workspace["channels"][0]["id"],
        "user_id": user,
        "command": "/aswhom",
        "text": text,
    }
    town.deliver("slack", "command", fields, through="slack", installation=workspace["team_id"])


def known_in_slack(town: Town, user: str, principal: str) -> None:
    town.runtime.database.write(
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


def test_a_slash_command_files_an_issue_as_whoever_typed_it(town: Town) -> None:
    town.connect_engineer("acme", "ada")
    known_in_slack(town, "U0ADA", "acme.ada")
    typed(town, "issue The <login> page is slow")
    settled(town)
    assert town.authors() == [ISSUE, bot(town)]
    (job,) = town.jobs()
    assert (job.user_id, job.triggered_by, job.pattern) == ("acme.ada", "slack:U0ADA", "hybrid")
    assert messages(town)[0].endswith("> The &lt;login&gt; page is slow")


def test_a_slash_command_of_nobody_we_know_files_nothing_and_says_so(town: Town) -> None:
    typed(town, "issue The login page is slow")
    settled(town)
    assert town.authors() == [bot(town)]
    assert messages(town) == ["Nobody here knows you yet: connect Linear and Slack first."]


def test_other_words_after_the_command_start_nothing(town: Town) -> None:
    typed(town, "help")
    assert town.jobs() == []
