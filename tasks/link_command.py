"""`/aswhom link` in a comment: tracks a pull request's labels now, as the person who asked."""

from __future__ import annotations

from pipeline.run import Run
from pipeline.workflow import SERVICE, USER, compensate, workflow
from tasks.actions import github, linear, slack
from tasks.devops_assistant import DevOpsConfig, say_it_ended, track
from tasks.events.github import CommentCommand, comment_command

LONGEST = 100  # characters of a quoted label: no real one has more than 50


@workflow(
    agent="devops-assistant",
    on=comment_command("link"),
    event=CommentCommand,
    user=lambda event: event.author,
    triggered_by=lambda event: event.author,
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
def link_on_command(run: Run[DevOpsConfig], event: CommentCommand) -> None:
    """Track all labels with a rule, or only the named one; labels already tracked stay as they are.

    Anybody may comment on a public repository, so an unknown person's command does nothing at all.
    """
    if not run.has_user:
        return
    pull = run.do(github.GetPull(repo=event.repo, number=event.number), as_=run.service)
    named = " ".join(event.words) or None
    if track(run, pull, only=named) == 0:
        body = f"`{named[:LONGEST]}` is no label here that has a rule." if named else "No label here has a rule."
        run.do(github.Comment(repo=event.repo, number=event.number, body=body), as_=run.user)
