"""Slack's Events API and slash commands as typed events (docs.slack.dev/reference/events)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from pipeline.workflow import Event, ExternalUser, Trigger


class AppMentionEvent(Event):
    team: str | None  # the workspace that has the app; None: a whole organization has it
    channel: str
    user: ExternalUser
    text: str
    ts: str
    thread_ts: str | None  # set in a thread

    @property
    def thread(self) -> str:
        """Where a reply belongs: the thread it was said in, or one that the reply begins."""
        return self.thread_ts or self.ts


class _Mention(BaseModel):
    user: str
    channel: str
    text: str
    ts: str
    thread_ts: str | None = None


class _Authorization(BaseModel):
    team_id: str | None = None


class _Envelope(BaseModel):
    team_id: str | None = None  # of whoever wrote: in a channel that two companies share, not always ours
    authorizations: list[_Authorization] = []
    event: _Mention

    @property
    def team(self) -> str | None:
        return self.authorizations[0].team_id if self.authorizations else self.team_id


def app_mention(*, edits: bool = False) -> Trigger[AppMentionEvent]:
    """Somebody mentioned the app in a channel. A bot is not meant: two that answer each other never stop.

    Slack sends it anew, as another event, whenever the message is edited. That is left out, unless *edits*: then a once
    key of `f"{event.channel}:{event.ts}"` does what is to be done once a message. Without *edits* a mention that only
    an edit brought in starts nothing: Slack does not tell which of the two it was.
    """

    def read(body: Mapping[str, Any]) -> AppMentionEvent | None:
        said = body.get("event")
        if isinstance(said, Mapping):
            if said.get("bot_id") or not said.get("channel"):
                return None
            if said.get("edited") and not edits:
                return None
        envelope = _Envelope.model_validate(body)
        mention = envelope.event
        return AppMentionEvent(
            team=envelope.team,
            channel=mention.channel,
            # Slack says no name, and its ids are what people are known by.
            user=ExternalUser(provider="slack", id=mention.user, login=mention.user),
            text=mention.text,
            ts=mention.ts,
            thread_ts=mention.thread_ts,
        )

    return Trigger(source="slack", event="app_mention", read=read)


class SlashCommand(Event):
    """Somebody typed a command of ours."""

    team: str | None  # where it was typed
    channel: str
    user: ExternalUser
    command: str  # /aswhom
    name: str  # its first word; empty: there is none
    text: str  # what follows the first word


class _Typed(BaseModel):
    team_id: str | None = None
    channel_id: str
    user_id: str
    command: str
    text: str = ""


def slash_command(name: str, usage: str = "") -> Trigger[SlashCommand]:
    """A command of the app was typed with *name* as its first word: `/aswhom NAME …`, or as the app calls it at Slack.

    In whatever capitals. *usage* is what has to follow it, as whoever typed something else is told; without any,
    nothing has to.
    docs.slack.dev/interactivity/implementing-slash-commands
    """

    def read(body: Mapping[str, Any]) -> SlashCommand | None:
        typed = _Typed.model_validate(body)
        first, *rest = typed.text.split(maxsplit=1) or [""]  # at whatever white space
        if first.lower() != name.lower() or (usage and not rest):
            return None
        return SlashCommand(
            team=typed.team_id,
            channel=typed.channel_id,
            user=ExternalUser(provider="slack", id=typed.user_id, login=typed.user_id),
            command=typed.command,
            name=name,
            text=rest[0].strip() if rest else "",
        )

    return Trigger(source="slack", event="command", read=read, usage=f"{name} {usage}".strip())
