"""`/aswhom issue TITLE` in Slack: files an issue as the person who typed it."""

from __future__ import annotations

from contextlib import suppress

from pipeline.run import ActionFailed, Run, StepRefused
from pipeline.workflow import SERVICE, USER, workflow
from tasks.actions import linear, slack
from tasks.events.slack import SlashCommand, slash_command

LONGEST = 200  # characters of a title


class CommandConfig(linear.IssueTemplate):
    """Defaults for issues filed by command."""


@workflow(
    agent="devops-assistant",
    on=slash_command("issue", usage="TITLE"),
    event=SlashCommand,
    user=lambda event: event.user,
    triggered_by=lambda event: event.user,
    uses={linear.CreateIssue: USER, slack.PostMessage: SERVICE},
    config=CommandConfig,
)
def file_from_slack(run: Run[CommandConfig], event: SlashCommand) -> None:
    """File the issue in the person's name, and tell the channel; for an unknown person, file nothing.

    The response to their command has already told them that they are not known.
    """
    if not run.has_user:
        return
    issue = linear.CreateIssue(
        team_id=run.config.team_id,
        title=event.text[:LONGEST],
        description=event.text,
        priority=run.config.priority,
        label_ids=run.config.label_ids,
    )
    filed = run.do(issue, as_=run.user)
    text = f"{slack.link(filed.url, filed.identifier)} {slack.escape(event.text[:LONGEST])}"
    # The command also works where the bot is not a member, or may not post: the issue stands.
    with suppress(ActionFailed, StepRefused):
        run.do(slack.PostMessage(channel=event.channel, text=text), as_=run.service)
