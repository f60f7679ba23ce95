"""The DevOps assistant: a labelled pull request gets an issue, a comment and a notice, each as the right principal."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipeline.run import Run, StepRefused
from pipeline.workflow import SERVICE, USER, Who, compensate, workflow
from tasks.actions import github, linear, slack
from tasks.actions.linear_issues import Issue
from tasks.events.github import PullRequestEvent, pull_request
from tasks.refusals import Postponed


class LabelRule(linear.IssueTemplate):
    """Instructions for one label."""

    channel: slack.Channel
    attribute_to_user: bool = True  # file as the author of the pull request, not as the workspace
    without_user: Literal["service", "refuse"] = "service"  # if the author is not known here


class DevOpsConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    label_rules: dict[str, LabelRule] = {}


def say_it_ended(filed: linear.CreateIssue, issue: Issue) -> linear.Notice:
    """Comment on an issue whose job was stopped before it was linked and announced."""
    body = (
        f"The work that filed this issue ({filed.title}) was stopped: the consent it was done under has ended. "
        "The pull request may lack its link, and nobody may have been told. The issue itself stays."
    )
    return linear.Notice(issue_id=issue.id, body=body)


@workflow(
    agent="devops-assistant",
    on=pull_request("opened", "labeled"),
    event=PullRequestEvent,
    user=lambda event: event.author,
    triggered_by=lambda event: event.sender,
    uses={
        github.GetPull: SERVICE,
        linear.CreateIssue: (USER | SERVICE).on_revoke(compensate(linear.Notice, say_it_ended)),
        github.Comment: USER,
        slack.PostMessage: SERVICE,
        linear.FindIssuesOfPull: USER | SERVICE,
        linear.MoveIssue: USER | SERVICE,
    },
    config=DevOpsConfig,
)
def link_pull_request(run: Run[DevOpsConfig], event: PullRequestEvent) -> None:
    """Track each label that has a rule: file an issue, comment its link, and post a notice.

    GitHub sends `opened` and one `labeled` per label for one pull request, in any order. Each effect therefore has a
    once key, made only of what does not change: the label and the pull request's number, never its title.
    """
    pull = run.do(github.GetPull(repo=event.repo, number=event.number), as_=run.service)
    track(run, pull, only=event.label)


def track(run: Run[DevOpsConfig], pull: github.PullRequest, *, only: str | None) -> int:
    """Track the labels that have a rule, or *only* one of them; return how many there were.

    Each label has a rule of its own: what is refused for one does not keep the others from being tracked, and is made
    up for by a replay.
    """
    rules = {label: run.config.label_rules[label] for label in pull.labels if label in run.config.label_rules}
    if only is not None:
        rules = {label: rule for label, rule in rules.items() if label == only}
    refusals = Postponed()
    for label, rule in rules.items():
        by_user = rule.attribute_to_user and (run.has_user or rule.without_user == "refuse")
        key = f"{pull.key}:{label}"
        filer = run.user if by_user else run.service
        with refusals, run.part(), suppress(StepRefused):  # a refused step is recorded with its reason
            issue = run.do(linear.CreateIssue.for_pull(pull, rule, label=label), as_=filer, once=key)
            if run.has_user:  # a comment speaks for a person, so there is none without one
                body = f"Tracked as [{issue.identifier}]({issue.url})"
                with refusals, suppress(StepRefused):
                    run.do(github.Comment(repo=pull.repo, number=pull.number, body=body), as_=run.user, once=key)
            # Refused, for example, if it was already posted to a channel that the rule named earlier.
            text = f"{slack.link(pull.html_url, pull.key)} → {slack.link(issue.url, issue.identifier)}"
            with refusals, suppress(StepRefused):
                run.do(slack.PostMessage(channel=rule.channel, text=text), as_=run.service, once=key)
            _finish_if_merged(run, pull, issue, filer)
    refusals.raise_first()
    return len(rules)


def _finish_if_merged(run: Run[DevOpsConfig], pull: github.PullRequest, filed: Issue, filer: Who) -> None:
    """Move the issue just *filed* to done, as its *filer*, if the pull request is merged by now.

    A job may wait for days, for a consent or an upstream, and be replayed later still. What the merge itself starts
    (`close_issues`) finds only the issues that there are by then, so whoever files one later has to look again. The
    search runs as the filer too: the tenant may have no service account at Linear.
    """
    if not run.do(github.GetPull(repo=pull.repo, number=pull.number), as_=run.service).merged:
        return
    for issue in run.do(linear.FindIssuesOfPull(pull=pull.key), as_=filer).issues:
        if issue.id == filed.id and (move := linear.MoveIssue.to_done(issue)) is not None:
            run.do(move, as_=filer)
