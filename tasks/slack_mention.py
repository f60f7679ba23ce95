"""Answers a mention in Slack: the smallest possible workflow."""

from __future__ import annotations

from pipeline.run import Run
from pipeline.workflow import SERVICE, NoConfig, workflow
from tasks.actions import slack
from tasks.events.slack import AppMentionEvent, app_mention

ANSWER = "I turn labelled pull requests into Linear issues. Label one, and I answer there."


@workflow(
    agent="devops-assistant",
    on=app_mention(),
    event=AppMentionEvent,
    triggered_by=lambda event: event.user,
    uses={slack.PostMessage: SERVICE},
)
def answer_mention(run: Run[NoConfig], event: AppMentionEvent) -> None:
    """Reply in the thread, as the workspace."""
    run.do(slack.PostMessage(channel=event.channel, text=ANSWER, thread=event.thread), as_=run.service)
