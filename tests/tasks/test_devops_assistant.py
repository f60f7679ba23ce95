"""The DevOps assistant: in whose name each step runs, and that two deliveries make one of each."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.action import Action
from pipeline.run import ActionFailed, StepRefused, UpstreamGone
from pipeline.workflow import SERVICE, USER, ExternalUser
from tasks.actions import github, linear, slack
from tasks.actions.linear_issues import Issue, Tracked, TrackedIssues
from tasks.devops_assistant import DevOpsConfig, LabelRule, link_pull_request
from tasks.events.github import CommentCommand, PullRequestEvent
from tasks.link_command import link_on_command
from tests.tasks.scripted_run import Script, Step, Tenant, play

AUTHOR = ExternalUser(provider="github", id="1", login="octocat")
MAINTAINER = ExternalUser(provider="github", id="2", login="a-maintainer")

BUG = LabelRule(team_id="team-1", channel="C1")
UI = LabelRule(team_id="team-2", channel="C2", attribute_to_user=False)
RULES = DevOpsConfig(label_rules={"bug": BUG, "ui": UI})


def event(action: str = "opened", *, label: str | None = None, title: str = "Fix it") -> PullRequestEvent:
    return PullRequestEvent(
        action=action,
        repo="acme/shop",
        number=42,
        title=title,
        html_url="https://github.com/acme/shop/pull/42",
        draft=False,
        merged=False,
        author=AUTHOR,
        sender=MAINTAINER,
        labels=(),
        label=label,
    )


def upstreams(*labels: str, title: str = "Fix it") -> Script:
    """GitHub, Linear and Slack, where the pull request has these labels."""
    numbers = itertools.count(7)

    def pull(action: github.GetPull) -> github.PullRequest:
        return github.PullRequest(
            repo=action.repo,
            number=action.number,
            title=title,
            html_url="https://github.com/acme/shop/pull/42",
            state="open",
            draft=False,
            merged=False,
            author=AUTHOR,
            labels=labels,
        )

    def issue(action: linear.CreateIssue) -> Issue:
        identifier = f"ENG-{next(numbers)}"
        return Issue(id=identifier.lower(), identifier=identifier, url=f"https://linear.app/acme/{identifier}")

    def comment(action: github.Comment) -> github.Made:
        return github.Made(id=1, html_url="https://github.com/acme/shop/pull/42#issuecomment-1")

    def message(action: slack.PostMessage) -> slack.Message:
        return slack.Message(channel=action.channel, ts="1503435956.000247")

    return {
        github.GetPull: pull,
        linear.CreateIssue: issue,
        github.Comment: comment,
        slack.PostMessage: message,
    }


def run(
    delivered: PullRequestEvent,
    script: Script,
    *,
    config: DevOpsConfig = RULES,
    has_user: bool = True,
    tenant: Tenant | None = None,
) -> list[Step]:
    return play(link_pull_request, delivered, script, config=config, has_user=has_user, tenant=tenant)


def names(actions: list[Action[Any]]) -> list[str]:
    return [action.action_name() for action in actions]


def test_a_labelled_pull_request_gets_an_issue_a_comment_and_a_notice_each_in_its_name() -> None:
    done = run(event(), upstreams("bug"))
    assert [(step.action.action_name(), step.as_, step.once) for step in done] == [
        ("github.GetPull", SERVICE, None),
        ("linear.CreateIssue", USER, "acme/shop#42:bug"),
        ("github.Comment", USER, "acme/shop#42:bug"),
        ("slack.PostMessage", SERVICE, "acme/shop#42:bug"),
        ("github.GetPull", SERVICE, None),
    ]
    comment, message = (step.action for step in done[2:4])
    assert isinstance(comment, github.Comment)
    assert comment.body == "Tracked as [ENG-7](https://linear.app/acme/ENG-7)"
    assert isinstance(message, slack.PostMessage)
    assert (message.channel, message.text) == (
        "C1",
        "<https://github.com/acme/shop/pull/42|acme/shop#42> → <https://linear.app/acme/ENG-7|ENG-7>",
    )


def test_a_rule_may_file_as_the_workspace() -> None:
    done = run(event(), upstreams("ui"))
    assert [step.as_ for step in done] == [SERVICE, SERVICE, USER, SERVICE, SERVICE]


def test_a_label_without_a_rule_starts_nothing() -> None:
    assert names([step.action for step in run(event(), upstreams("docs"))]) == ["github.GetPull"]


def opened_first(*labels: str) -> list[PullRequestEvent]:
    return [event("opened"), *(event("labeled", label=label) for label in labels)]


ORDERS = list(itertools.permutations(opened_first("bug", "ui")))


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "-".join(each.label or "opened" for each in order))
def test_opened_and_labeled_make_one_of_each_in_any_order(order: tuple[PullRequestEvent, ...]) -> None:
    tenant, script = Tenant(), upstreams("bug", "ui")
    for delivery in order:
        run(delivery, script, tenant=tenant)
    made = [name for name in names(tenant.effects) if name != "github.GetPull"]
    assert sorted(made) == ["github.Comment"] * 2 + ["linear.CreateIssue"] * 2 + ["slack.PostMessage"] * 2


def test_a_pull_request_that_changes_between_two_deliveries_still_gets_one_of_each() -> None:
    tenant = Tenant()
    run(event("opened"), upstreams("bug"), tenant=tenant)
    run(event("labeled", label="bug", title="New"), upstreams("bug", "ui", title="New"), tenant=tenant)
    assert names(tenant.effects).count("linear.CreateIssue") == 1


def test_the_second_delivery_speaks_of_the_first_ones_issue() -> None:
    tenant, script = Tenant(), upstreams("bug")
    run(event("opened"), script, tenant=tenant)
    second = run(event("labeled", label="bug"), script, tenant=tenant)
    assert [step.adopted for step in second] == [False, True, True, True, False]


def test_another_label_does_not_touch_what_was_filed_under_older_rules() -> None:
    tenant = Tenant()
    run(event("opened"), upstreams("bug"), tenant=tenant)
    changed = DevOpsConfig(label_rules={"bug": LabelRule(team_id="team-9", channel="C9"), "ui": UI})
    later = run(event("labeled", label="ui"), upstreams("bug", "ui"), tenant=tenant, config=changed)
    assert {step.once for step in later} == {None, "acme/shop#42:ui"}


def test_a_notice_that_was_sent_to_another_channel_keeps_no_other_label_untracked() -> None:
    tenant = Tenant()
    run(event("opened"), upstreams("bug"), tenant=tenant)
    moved = DevOpsConfig(label_rules={"bug": LabelRule(team_id="team-1", channel="C9"), "ui": UI})
    run(event("opened"), upstreams("bug", "ui"), tenant=tenant, config=moved)
    assert names(tenant.effects).count("linear.CreateIssue") == 2
    told = [one.channel for one in tenant.effects if isinstance(one, slack.PostMessage)]
    assert told == ["C1", "C2"], "of the issue that there was already nobody is told again"


def test_a_comment_that_may_not_be_made_keeps_nobody_from_being_told() -> None:
    def refuse(action: github.Comment) -> github.Made:
        raise StepRefused("denied by quiet")

    script: dict[type[Action[Any]], Callable[[Any], Any]] = {**upstreams("bug", "ui"), github.Comment: refuse}
    done = run(event(), script)
    assert names([step.action for step in done]).count("slack.PostMessage") == 2


def test_a_command_for_a_label_of_any_length_is_answered() -> None:
    url = "https://github.com/acme/shop/pull/42"
    words = ("x" * 65_500,)
    command = CommentCommand(repo="acme/shop", number=42, html_url=url, comment_id=1, author=AUTHOR, words=words)
    (answer,) = play(link_on_command, command, upstreams("bug"), config=RULES, has_user=True)[1:]
    assert isinstance(answer.action, github.Comment)
    assert len(answer.action.body) < 300


def test_a_label_that_is_gone_again_starts_nothing() -> None:
    done = run(event("labeled", label="bug"), upstreams("ui"))
    assert names([step.action for step in done]) == ["github.GetPull"]


def test_a_strangers_pull_request_is_filed_by_the_workspace_and_gets_no_comment() -> None:
    done = run(event(), upstreams("bug"), has_user=False)
    assert [(step.action.action_name(), step.as_) for step in done] == [
        ("github.GetPull", SERVICE),
        ("linear.CreateIssue", SERVICE),
        ("slack.PostMessage", SERVICE),
        ("github.GetPull", SERVICE),
    ]


def test_a_rule_may_refuse_strangers_without_stopping_the_other_labels() -> None:
    strict = LabelRule(team_id="team-1", channel="C1", without_user="refuse")
    done = run(
        event(), upstreams("bug", "ui"), has_user=False, config=DevOpsConfig(label_rules={"bug": strict, "ui": UI})
    )
    assert {step.once for step in done} == {None, "acme/shop#42:ui"}


def test_a_person_who_is_linked_between_two_deliveries_does_not_get_a_second_issue() -> None:
    tenant, script = Tenant(), upstreams("bug")
    run(event("opened"), script, tenant=tenant, has_user=False)
    run(event("labeled", label="bug"), script, tenant=tenant, has_user=True)
    assert names(tenant.effects).count("linear.CreateIssue") == 1


@pytest.mark.parametrize(
    ("action", "left_out"),
    [
        (linear.CreateIssue, ["linear.CreateIssue", "github.Comment", "slack.PostMessage"]),
        (github.Comment, ["github.Comment"]),
        (slack.PostMessage, ["slack.PostMessage"]),
    ],
)
def test_a_failure_at_one_label_ends_the_run_once_all_else_is_done(
    action: type[Action[Any]], left_out: list[str]
) -> None:
    tenant, all_of_it = Tenant(), upstreams("bug", "ui")
    asked = itertools.count()

    def refuse_first(asks: Any) -> Any:
        if next(asked) == 0:
            raise ActionFailed("not here")
        return all_of_it[action](asks)

    with pytest.raises(ActionFailed, match="not here"):
        run(event(), {**all_of_it, action: refuse_first}, tenant=tenant)
    of_two = ["linear.CreateIssue", "github.Comment", "slack.PostMessage"] * 2
    done = Counter(name for name in names(tenant.effects) if name != "github.GetPull")
    assert done == Counter(of_two) - Counter(left_out)


def test_an_upstream_that_is_gone_is_waited_for_at_one_label_and_not_at_each() -> None:
    tried: list[linear.CreateIssue] = []

    def away(action: linear.CreateIssue) -> Issue:
        tried.append(action)
        raise UpstreamGone("linear.CreateIssue failed: it did not come back in time")

    with pytest.raises(UpstreamGone):
        run(event(), {**upstreams("bug", "ui"), linear.CreateIssue: away})
    assert len(tried) == 1


def test_nobody_looks_again_where_nothing_was_filed() -> None:
    def refuse(action: linear.CreateIssue) -> Issue:
        raise StepRefused("denied by quiet")

    done = run(event(), {**upstreams("bug"), linear.CreateIssue: refuse})
    assert names([step.action for step in done]) == ["github.GetPull"]


def test_of_a_pull_request_that_is_merged_by_then_only_what_the_job_filed_is_moved() -> None:
    """Each found and moved as its filer; what is done, or has no column to go to, stays."""
    script = upstreams("bug", "ui")
    pull = script[github.GetPull]

    def found(action: linear.FindIssuesOfPull) -> TrackedIssues:
        one = Tracked(id="eng-7", identifier="ENG-7", url="u", done=False, done_state_id="done")
        others = (
            {"id": "eng-7", "done": True},
            {"id": "eng-7", "done_state_id": None},
            {"id": "eng-8"},
            {"id": "eng-9"},
        )
        return TrackedIssues(issues=(one, *(one.model_copy(update=other) for other in others)))

    merged: Script = {
        **script,
        github.GetPull: lambda action: pull(action).model_copy(update={"state": "closed", "merged": True}),
        linear.FindIssuesOfPull: found,
        linear.MoveIssue: lambda action: Issue(id=action.issue_id, identifier="", url=""),
    }
    done = [(step.action, step.as_) for step in run(event(), merged)]
    find = linear.FindIssuesOfPull(pull="acme/shop#42")
    assert [step for step in done if isinstance(step[0], linear.FindIssuesOfPull | linear.MoveIssue)] == [
        (find, USER),
        (linear.MoveIssue(issue_id="eng-7", state_id="done"), USER),
        (find, SERVICE),
        (linear.MoveIssue(issue_id="eng-8", state_id="done"), SERVICE),
    ]


def test_the_longest_once_key_fits_its_column() -> None:
    longest = f"{'o' * 39}/{'r' * 100}#{9_999_999}:{'l' * 50}"  # GitHub's limits for a login, a repository and a label
    assert len(longest) <= 200


def test_a_misspelt_rule_is_refused() -> None:
    with pytest.raises(ValidationError, match="attribute_to"):
        DevOpsConfig.model_validate({"label_rules": {"bug": {"team_id": "t", "channel": "C1", "attribute_to": True}}})
    assert DevOpsConfig().label_rules == {}
