"""Linear's webhooks as typed events (linear.app/developers/webhooks)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from pipeline.workflow import Event, ExternalUser, Trigger
from tasks.actions.linear_ids import is_ours

COMMENT_ACTIONS = frozenset({"create", "update", "remove"})

# The two of the four actor kinds in Linear's schema that are people; the others' spelling is not published.
_PEOPLE = frozenset({"user", "externaluser"})


class CommentEvent(Event):
    action: str
    id: str
    issue_id: str | None  # None: a comment on a document, project or update
    url: str | None
    body: str
    author: ExternalUser | None  # may be an app, which is a user at Linear; None: an integration or an outsider
    by_app: bool = False  # done by an app or integration; if one acts with a person's token, the act is that person's
    changed: tuple[str, ...] = ()  # an update's fields, as Linear names them: `body`, `resolvedAt` …


class _Comment(BaseModel):
    id: str
    body: str
    issue_id: str | None = Field(default=None, alias="issueId")
    user_id: str | None = Field(default=None, alias="userId")
    bot: Any = Field(default=None, alias="botActor")


class _Actor(BaseModel):
    type: str = ""


class _Delivery(BaseModel):
    action: str
    data: _Comment
    url: str | None = None
    actor: _Actor | None = None
    updated_from: dict[str, Any] | None = Field(default=None, alias="updatedFrom")

    @property
    def by_app(self) -> bool:
        return self.data.bot is not None or (self.actor is not None and self.actor.type.lower() not in _PEOPLE)


def comment(*actions: str, ours: bool = False) -> Trigger[CommentEvent]:
    """Trigger on a comment's `create`, `update` or `remove`. Raises TypeError for another action.

    Comments made by our own steps are ignored unless *ours*: a workflow that answers comments would answer itself.
    """
    unknown = set(actions) - COMMENT_ACTIONS
    if unknown or not actions:
        raise TypeError(f"comment() takes Linear's actions, not {', '.join(sorted(unknown)) or 'none at all'}")

    def read(body: Mapping[str, Any]) -> CommentEvent | None:
        if body.get("action") not in actions:
            return None
        delivery = _Delivery.model_validate(body)
        said = delivery.data
        if is_ours(said.id) and not ours:
            return None
        return CommentEvent(
            action=delivery.action,
            id=said.id,
            issue_id=said.issue_id,
            url=delivery.url,
            body=said.body,
            author=ExternalUser(provider="linear", id=said.user_id, login=said.user_id) if said.user_id else None,
            by_app=delivery.by_app,
            changed=tuple(sorted(delivery.updated_from or ())),
        )

    return Trigger(source="linear", event="Comment", read=read)
