"""Slack's Events API and slash commands as typed events (docs.slack.dev/reference/events)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from pipeline.workflow import Event, ExternalUser, Trigger


class AppMentionEvent(Event):
    team: str | None  # the workspace that has the app; None: an organization-wide installation
    channel: str
    user: ExternalUser
    text: str  # as typed, but people, channels and links are in Slack's markup: <@U0123ABCD>
    ts: str
    thread_ts: str | None  # set in a thread

    @property
    def thread(self) -> str:
        """Return where a reply belongs: the message's thread, or one that the reply starts."""
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
    team_id: str | None = None  # the author's: in a channel shared by two companies, not always ours
    authorizations: list[_Authorization] = []
    event: _Mention

    @property
    def team(self) -> str | None:
        return self.authorizations[0].team_id if self.authorizations else self.team_id


def app_mention(*, edits: bool = False) -> Trigger[AppMentionEvent]:
    """Trigger on a mention of the app in a channel. Bots are ignored: two that answer each other never stop.

    Slack sends another event whenever the message is edited, which is ignored unless *edits*. With *edits*, use the
    once key `f"{event.channel}:{event.ts}"` for what should happen once per message. Without it, a mention added by an
    edit starts nothing: Slack does not tell the two cases apart.
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
            # Slack sends no name; people are known by their ids.
            user=ExternalUser(provider="slack", id=mention.user, login=mention.user),
            text=_typed_text(mention.text),
            ts=mention.ts,
            thread_ts=mention.thread_ts,
        )

    return Trigger(source="slack", event="app_mention", read=read)


class SlashCommand(Event):
    """A command of ours that somebody typed."""

    team: str | None  # where it was typed
    channel: str
    user: ExternalUser
    command: str  # /aswhom
    name: str  # its first word
    text: str  # what follows the first word, as typed


def _typed_text(text: str) -> str:
    """Undo the escapes of the three characters that Slack escapes in what people type, and no others.

    docs.slack.dev/messaging/formatting-message-text#escaping
    """
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


class _Typed(BaseModel):
    team_id: str | None = None
    channel_id: str
    user_id: str
    command: str
    text: str = ""


def slash_command(name: str, usage: str = "") -> Trigger[SlashCommand]:
    """Trigger on the app's command with *name* as its first word: `/aswhom NAME …`, or the app's own command at Slack.

    Case is ignored. *usage* names the required rest of the command, and is suggested to people who typed something
    else; without it, nothing else is required.
    docs.slack.dev/interactivity/implementing-slash-commands
    """

    def read(body: Mapping[str, Any]) -> SlashCommand | None:
        typed = _Typed.model_validate(body)
        first, *rest = _typed_text(typed.text).split(maxsplit=1) or [""]  # at any white space
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
