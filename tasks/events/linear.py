"""Linear's webhooks as typed events (linear.app/developers/webhooks)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from pipeline.workflow import Event, ExternalUser, Trigger

COMMENT_ACTIONS = frozenset({"create", "update", "remove"})


class CommentEvent(Event):
    action: str
    id: str
    issue_id: str | None  # None: a comment on a document, project or update
    url: str | None
    body: str
    author: ExternalUser | None  # None: an integration wrote it


class _Comment(BaseModel):
    id: str
    body: str
    issue_id: str | None = Field(default=None, alias="issueId")
    user_id: str | None = Field(default=None, alias="userId")


class _Delivery(BaseModel):
    action: str
    data: _Comment
    url: str | None = None


def comment(*actions: str) -> Trigger[CommentEvent]:
    """A comment was made (`create`), changed (`update`) or deleted (`remove`). Raises TypeError for another action."""
    unknown = set(actions) - COMMENT_ACTIONS
    if unknown or not actions:
        raise TypeError(f"comment() takes Linear's actions, not {', '.join(sorted(unknown)) or 'none at all'}")

    def read(body: Mapping[str, Any]) -> CommentEvent | None:
        if body.get("action") not in actions:
            return None
        delivery = _Delivery.model_validate(body)
        said = delivery.data
        return CommentEvent(
            action=delivery.action,
            id=said.id,
            issue_id=said.issue_id,
            url=delivery.url,
            body=said.body,
            author=ExternalUser(provider="linear", id=said.user_id, login=said.user_id) if said.user_id else None,
        )

    return Trigger(source="linear", event="Comment", read=read)
