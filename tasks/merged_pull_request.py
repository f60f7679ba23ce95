"""A merged pull request: moves its issues to done, and announces it in the channel."""

from __future__ import annotations

from contextlib import suppress

from pydantic import BaseModel, ConfigDict

from pipeline.run import Run, StepRefused
from pipeline.workflow import SERVICE, USER, workflow
from tasks.actions import linear, slack
from tasks.events.github import PullRequestEvent, pull_request
from tasks.refusals import Postponed


class MergedConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    channel: slack.Channel


@workflow(
    agent="devops-assistant",
    on=pull_request("closed", where=lambda event: event.merged),
    event=PullRequestEvent,
    user=lambda event: event.sender,
    triggered_by=lambda event: event.sender,
    uses={linear.FindIssuesOfPull: SERVICE, linear.MoveIssue: USER | SERVICE, slack.PostMessage: SERVICE},
    config=MergedConfig,
)
def close_issues(run: Run[MergedConfig], event: PullRequestEvent) -> None:
    """Move the issues as the person who merged, or as the workspace if that person is not known here.

    The notice names the issues that the merge closes, moved or not: its text must be the same in a replay, which may
    move one that was refused before.
    """
    if not event.merged:
        return  # the job was accepted before the trigger had its filter, or started by hand
    found = run.do(linear.FindIssuesOfPull(pull=event.key), as_=run.service)
    closes = []
    refusals = Postponed()
    for issue in found.issues:
        if (move := linear.MoveIssue.to_done(issue)) is None:
            continue
        closes.append(slack.link(issue.url, issue.identifier))
        with refusals:  # the other issues are still moved, and the channel is told of the merge
            run.do(move, as_=run.user if run.has_user else run.service)
    what = f", which closes {', '.join(closes)}" if closes else ""
    text = f"{slack.link(event.html_url, event.key)} was merged by {slack.escape(event.sender.login)}{what}"
    with refusals, suppress(StepRefused):
        run.do(slack.PostMessage(channel=run.config.channel, text=text), as_=run.service, once=f"{event.key}:merged")
    refusals.raise_first()
