"""Approvals in Slack: a question with buttons in a channel, and its outcome there and in its thread."""

from __future__ import annotations

from contextlib import suppress

from pydantic import BaseModel, ConfigDict

from pipeline.approvals.news import ApprovalNews, approval_news
from pipeline.run import ActionFailed, Run, StepRefused
from pipeline.states import ApprovalState
from pipeline.workflow import SERVICE, workflow
from tasks.actions import slack


class AskConfig(BaseModel):
    """The channel for questions; approvers read it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channel: slack.Channel


@workflow(
    agent="approvals",
    on=approval_news(),
    event=ApprovalNews,
    uses={slack.AskApproval: SERVICE, slack.EndQuestion: SERVICE, slack.PostMessage: SERVICE},
    config=AskConfig,
)
def ask_in_slack(run: Run[AskConfig], news: ApprovalNews) -> None:
    """Ask once; after the decision, reply in the thread and remove the buttons.

    An approval that ended before it was asked here is not mentioned.
    """
    if news.state != ApprovalState.OPEN and not news.asked:
        return
    question = slack.AskApproval(
        channel=run.config.channel, approval=news.approval, shown=news.shown, expires_at=news.expires_at
    )
    asked = run.do(question, as_=run.service, once=news.approval)
    if news.state == ApprovalState.OPEN:
        return
    outcome = f"This is {news.state}" + (f": {news.reason}." if news.reason else ".")
    notice = slack.PostMessage(channel=asked.channel, text=slack.escape(outcome), thread=asked.ts)
    run.do(notice, as_=run.service, once=f"{news.approval}:{news.state}")
    end = slack.EndQuestion(channel=asked.channel, ts=asked.ts, shown=news.shown, outcome=outcome)
    with suppress(ActionFailed, StepRefused):  # deleted, too old to edit, or not allowed: the thread has the outcome
        run.do(end, as_=run.service)
