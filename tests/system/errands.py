"""Two workflows of the tests, at one upstream each: an issue in Linear as a person, a message in Slack as the app."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from pipeline.run import Run
from pipeline.workflow import SERVICE, USER, NoConfig, workflow
from tasks.actions import linear, slack
from tasks.events.slack import AppMentionEvent, app_mention


class FilingConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    team_id: linear.TeamId


@workflow(
    agent="filer",
    on=app_mention(),
    event=AppMentionEvent,
    user=lambda event: event.user,
    triggered_by=lambda event: event.user,
    uses={linear.CreateIssue: USER},
    config=FilingConfig,
)
def file_issue(run: Run[FilingConfig], event: AppMentionEvent) -> None:
    """File it."""
    issue = linear.CreateIssue(team_id=run.config.team_id, title=event.text, description=event.text)
    run.do(issue, as_=run.user)


@workflow(
    agent="speaker",
    on=app_mention(),
    event=AppMentionEvent,
    triggered_by=lambda event: event.user,
    uses={slack.PostMessage: SERVICE},
)
def say_it(run: Run[NoConfig], event: AppMentionEvent) -> None:
    """Say it."""
    run.do(slack.PostMessage(channel=event.channel, text=event.text), as_=run.service)
