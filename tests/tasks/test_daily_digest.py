"""The digest: read and posted as the platform, and harmless whatever people write in titles."""

from __future__ import annotations

from datetime import UTC, datetime

from pipeline.workflow import SERVICE, Tick
from tasks.actions import github, slack
from tasks.daily_digest import SHOWN, DigestConfig, daily_digest, digest
from tests.tasks.scripted_run import Script, play


def pulls(count: int, *, title: str = "Fix it", more: bool = False) -> github.Pulls:
    return github.Pulls(
        pulls=tuple(
            github.PullSummary(
                number=number,
                title=title,
                html_url=f"https://github.com/acme/shop/pull/{number}",
                author="octocat",
                draft=number == 2,
                created_at=datetime(2026, 3, 1, tzinfo=UTC),
            )
            for number in range(1, count + 1)
        ),
        more=more,
    )


def test_the_digest_lists_what_is_open_as_the_platform() -> None:
    script: Script = {
        github.ListPulls: lambda _: pulls(2),
        slack.PostMessage: lambda _: slack.Message(channel="C1", ts="1503435956.000247"),
    }
    config = DigestConfig(repo="acme/shop", channel="C1")
    done = play(daily_digest, Tick(slot="2026-03-02T09:00:00Z"), script, config=config)
    assert [step.as_ for step in done] == [SERVICE, SERVICE]
    message = done[1].action
    assert isinstance(message, slack.PostMessage)
    assert message.text.splitlines() == [
        "2 open pull requests in acme/shop:",
        "• <https://github.com/acme/shop/pull/1|#1> Fix it, octocat",
        "• <https://github.com/acme/shop/pull/2|#2> Fix it (draft), octocat",
    ]


def test_one_and_none_read_as_english() -> None:
    assert digest("acme/shop", pulls(1)).startswith("1 open pull request in acme/shop:")
    assert digest("acme/shop", pulls(0)) == "No open pull requests in acme/shop."


def test_a_title_cannot_call_everybody() -> None:
    assert "<!channel>" not in digest("acme/shop", pulls(1, title="<!channel> look"))


def test_the_longest_digest_fits_a_message() -> None:
    text = digest("acme/shop", pulls(100, title="&" * 256, more=True))
    assert text.startswith("100 or more open pull requests")
    assert len(text.splitlines()) == SHOWN + 2
    slack.PostMessage(channel="C1", text=text)
