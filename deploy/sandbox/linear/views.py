"""Linear's objects as GraphQL values, with functions for references to other objects."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from deploy.sandbox.linear.model import Attachment, Comment, Issue, Organization, State, Team, User
from deploy.sandbox.linear.store import Store, TextFilter

Json = dict[str, Any]
Row = TypeVar("Row")


class Views:
    def __init__(self, store: Store, viewer: User) -> None:
        self._store = store
        self._viewer = viewer
        self._began = _stamp(store.began)

    def organization(self, organization: Organization) -> Json:
        return {
            "id": organization.id,
            "name": organization.name,
            "urlKey": organization.url_key,
            "createdAt": self._began,
        }

    def user(self, user: User) -> Json:
        return {
            "id": user.id,
            "name": user.name,
            "displayName": user.name,
            "email": user.email,
            "active": True,
            "app": user.app,
            "isMe": user == self._viewer,
            "createdAt": self._began,
            "organization": lambda: self.organization(user.organization),
        }

    def team(self, team: Team) -> Json:
        return {
            "id": team.id,
            "key": team.key,
            "name": team.name,
            "createdAt": self._began,
            "organization": lambda: self.organization(team.organization),
            "states": lambda chosen=None, **page: connection(
                self._store.states_of(team, TextFilter((chosen or {}).get("type") or {})), self.state, **page
            ),
        }

    def state(self, state: State) -> Json:
        return {
            "id": state.id,
            "name": state.name,
            "type": state.type,
            "position": state.position,
            "createdAt": self._began,
            "team": lambda: self.team(state.team),
        }

    def issue(self, issue: Issue) -> Json:
        return {
            "id": issue.id,
            "identifier": issue.identifier,
            "number": issue.number,
            "title": issue.title,
            "description": issue.description,
            "priority": issue.priority,
            "labelIds": issue.label_ids,
            "url": self._url(issue),
            "trashed": True if issue.archived_at else None,
            "archivedAt": _stamp(issue.archived_at) if issue.archived_at else None,
            "createdAt": _stamp(issue.created_at),
            "updatedAt": _stamp(issue.updated_at),
            "creator": lambda: self.user(issue.creator),
            "assignee": lambda: self.user(issue.assignee) if issue.assignee else None,
            "state": lambda: self.state(issue.state),
            "team": lambda: self.team(issue.team),
            "comments": lambda **page: connection(issue.comments, self.comment, **page),
            "attachments": lambda **page: connection(issue.attachments, self.attachment, **page),
        }

    def comment(self, comment: Comment) -> Json:
        return {
            "id": comment.id,
            "body": comment.body,
            "url": f"{self._url(comment.issue)}#comment-{comment.id}",
            "createdAt": _stamp(comment.created_at),
            "updatedAt": _stamp(comment.created_at),
            "user": lambda: self.user(comment.user),
            "issue": lambda: self.issue(comment.issue),
        }

    def attachment(self, attachment: Attachment) -> Json:
        return {
            "id": attachment.id,
            "title": attachment.title,
            "subtitle": attachment.subtitle,
            "url": attachment.url,
            "metadata": attachment.metadata,
            "createdAt": _stamp(attachment.created_at),
            "updatedAt": _stamp(attachment.updated_at),
            "creator": lambda: self.user(attachment.creator),
            "issue": lambda: self.issue(attachment.issue),
        }

    def _url(self, issue: Issue) -> str:
        return f"{self._store.url}/{issue.team.organization.url_key}/issue/{issue.identifier}"


def connection(
    rows: Sequence[Row],
    view: Callable[[Row], Json],
    *,
    after: str | None = None,
    first: int | None = None,
    **_rest: Any,
) -> Json:
    """Return a page of *rows*. A cursor is the position after a row."""
    start = int(after) if after and after.isdigit() else 0
    end = start + (50 if first is None else first)
    chosen = rows[start:end]
    return {
        "nodes": [view(row) for row in chosen],
        "pageInfo": {
            "startCursor": str(start + 1) if chosen else None,
            "endCursor": str(start + len(chosen)) if chosen else None,
            "hasNextPage": end < len(rows),
            "hasPreviousPage": start > 0,
        },
    }


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
