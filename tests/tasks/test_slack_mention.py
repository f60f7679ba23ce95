"""The smallest workflow: a mention is answered in its thread, by the workspace."""

from __future__ import annotations

from pipeline.workflow import SERVICE, ExternalUser, NoConfig
from tasks.actions import slack
from tasks.events.slack import AppMentionEvent
from tasks.slack_mention import answer_mention
from tests.tasks.scripted_run import Script, play


def test_a_mention_is_answered_in_its_thread_as_the_workspace() -> None:
    script: Script = {slack.PostMessage: lambda _: slack.Message(channel="C1", ts="1503435956.000247")}
    event = AppMentionEvent(
        team="T1",
        channel="C1",
        user=ExternalUser(provider="slack", id="U1", login="U1"),
        text="<@W1> hi",
        ts="1595926230.009600",
        thread_ts=None,
    )
    [step] = play(answer_mention, event, script, config=NoConfig())
    assert step.as_ is SERVICE
    assert isinstance(step.action, slack.PostMessage)
    assert (step.action.channel, step.action.thread) == ("C1", "1595926230.009600")
