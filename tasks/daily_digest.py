"""A daily message listing the open pull requests of a repository."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from pipeline.run import Run
from pipeline.workflow import SERVICE, Daily, Tick, workflow
from tasks.actions import github, slack

SHOWN = 20


class DigestConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    repo: github.Repo
    channel: slack.Channel


def digest(repo: str, found: github.Pulls) -> str:
    """Return the message: how many are open, and the oldest of them."""
    if not found.pulls:
        return f"No open pull requests in {repo}."
    count = f"{len(found.pulls)}{' or more' if found.more else ''}"
    lines = [f"{count} open pull request{'' if count == '1' else 's'} in {repo}:"]
    for pull in found.pulls[:SHOWN]:
        author = f", {slack.escape(pull.author)}" if pull.author else ""
        draft = " (draft)" if pull.draft else ""
        lines.append(f"• {slack.link(pull.html_url, f'#{pull.number}')} {slack.escape(pull.title)}{draft}{author}")
    if len(found.pulls) > SHOWN:
        lines.append("… and more")
    return "\n".join(lines)


@workflow(
    agent="digest",
    schedule=Daily(cron="0 9 * * *"),
    uses={github.ListPulls: SERVICE, slack.PostMessage: SERVICE},
    config=DigestConfig,
)
def daily_digest(run: Run[DigestConfig], event: Tick) -> None:
    """Read and post as the platform: no person's authority is needed."""
    found = run.do(github.ListPulls(repo=run.config.repo), as_=run.service)
    text = digest(run.config.repo, found)
    run.do(slack.PostMessage(channel=run.config.channel, text=text), as_=run.service)
