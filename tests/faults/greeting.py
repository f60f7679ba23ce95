"""A workflow of the tests that can do without its user: it greets as her if it still may, and tells the channel."""

from __future__ import annotations

from contextlib import suppress

from pydantic import BaseModel, ConfigDict

from pipeline.run import Run, StepSkipped
from pipeline.workflow import SERVICE, SKIP, USER, workflow
from tasks.actions import github, slack
from tasks.events.github import PullRequestEvent, pull_request


class GreetingConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    channel: slack.Channel


@workflow(
    agent="greeter",
    on=pull_request("opened"),
    event=PullRequestEvent,
    user=lambda event: event.author,
    triggered_by=lambda event: event.sender,
    uses={github.Comment: USER.on_revoke(SKIP), slack.PostMessage: SERVICE},
    config=GreetingConfig,
)
def greet(run: Run[GreetingConfig], event: PullRequestEvent) -> None:
    """Greet, and tell the channel."""
    if run.has_user:
        with suppress(StepSkipped):
            run.do(github.Comment(repo=event.repo, number=event.number, body="I am on it."), as_=run.user)
    run.do(slack.PostMessage(channel=run.config.channel, text=f"{event.repo}#{event.number} is open"), as_=run.service)
