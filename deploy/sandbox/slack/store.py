"""Slack's state, in memory: workspaces, their bot tokens, and posted messages."""

import itertools
import threading
from dataclasses import asdict, dataclass, replace
from typing import Any

from deploy.sandbox.fingerprint import fingerprint
from deploy.sandbox.journal import Clock


@dataclass(frozen=True, kw_only=True)
class Workspace:
    team_id: str
    name: str
    bot_user_id: str
    bot_id: str
    scopes: frozenset[str]
    channels: dict[str, str]  # id → name

    def channel(self, reference: str) -> str | None:
        """Return a channel's id, given its id or its name with or without #."""
        if reference in self.channels:
            return reference
        return next((key for key, name in self.channels.items() if name == reference.removeprefix("#")), None)


@dataclass(frozen=True, kw_only=True)
class Message:
    team_id: str
    channel: str
    channel_name: str
    ts: str
    text: str
    blocks: list[Any]
    thread_ts: str | None
    user: str
    attempt: str | None


class Store:
    def __init__(self, slack: dict[str, Any], *, clock: Clock) -> None:
        self.lock = threading.Lock()
        self._clock = clock
        self._numbers = itertools.count(1)
        self._messages: list[Message] = []
        self.workspaces = {row["team_id"]: _workspace(row) for row in slack["workspaces"]}
        self._bots = {fingerprint(row["bot_token"]): row["team_id"] for row in slack["workspaces"]}
        self._revoked: set[str] = set()

    def holder(self, token: str) -> tuple[Workspace, bool] | None:
        """Return a bot token's workspace, and whether the token still works."""
        team_id = self._bots.get(fingerprint(token))
        if team_id is None:
            return None
        with self.lock:
            return self.workspaces[team_id], fingerprint(token) not in self._revoked

    def revoke(self, token: str) -> None:
        with self.lock:
            self._revoked.add(fingerprint(token))

    def revoke_team(self, team_id: str) -> None:
        with self.lock:
            self._revoked.update(mark for mark, team in self._bots.items() if team == team_id)

    def restore_team(self, team_id: str) -> None:
        with self.lock:
            self._revoked.difference_update(mark for mark, team in self._bots.items() if team == team_id)

    def post(
        self,
        workspace: Workspace,
        channel: str,
        *,
        text: str,
        blocks: list[Any],
        thread: str | None,
        attempt: str | None,
    ) -> Message:
        with self.lock:
            message = Message(
                team_id=workspace.team_id,
                channel=channel,
                channel_name=workspace.channels[channel],
                ts=f"{int(self._clock().timestamp())}.{next(self._numbers):06d}",
                text=text,
                blocks=blocks,
                thread_ts=thread,
                user=workspace.bot_user_id,
                attempt=attempt,
            )
            self._messages.append(message)
            return message

    def update(self, workspace: Workspace, channel: str, ts: str, *, text: str, blocks: list[Any]) -> Message | None:
        """Replace the text of the bot's own message. Return None if the channel has no message with this timestamp."""
        with self.lock:
            for at, message in enumerate(self._messages):
                if (message.team_id, message.channel, message.ts) == (workspace.team_id, channel, ts):
                    self._messages[at] = replace(message, text=text, blocks=blocks)
                    return self._messages[at]
        return None

    def messages(self) -> list[dict[str, Any]]:
        with self.lock:
            return [asdict(message) for message in self._messages]


def _workspace(row: dict[str, Any]) -> Workspace:
    return Workspace(
        team_id=row["team_id"],
        name=row["name"],
        bot_user_id=row["bot_user_id"],
        bot_id=row["bot_id"],
        scopes=frozenset(row["scopes"]),
        channels={channel["id"]: channel["name"] for channel in row["channels"]},
    )
