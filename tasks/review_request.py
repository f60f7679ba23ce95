"""Announces in a channel that a review was requested."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from pipeline.run import Run
from pipeline.workflow import SERVICE, ExternalUser, workflow
from tasks.actions import slack
from tasks.events.github import PullRequestEvent, pull_request


class ReviewConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    channel: slack.Channel


@workflow(
    agent="devops-assistant",
    on=pull_request("review_requested"),
    event=PullRequestEvent,
    triggered_by=lambda event: event.sender,
    uses={slack.PostMessage: SERVICE},
    config=ReviewConfig,
)
def announce_review(run: Run[ReviewConfig], event: PullRequestEvent) -> None:
    """Announce the request for a person's review, or a team's."""
    match event:
        case PullRequestEvent(reviewer=ExternalUser(login=who)):
            pass
        case PullRequestEvent(team=str(name)):
            who = f"the team {name}"
        case _:
            return  # the event was stored before teams were read
    who, by = slack.escape(who), slack.escape(event.sender.login)
    text = f"{slack.link(event.html_url, event.key)} waits for a review by {who}, asked for by {by}"
    run.do(slack.PostMessage(channel=run.config.channel, text=text), as_=run.service)
