"""GitHub's webhooks as typed events (docs.github.com/webhooks/webhook-events-and-payloads)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from pipeline.marker import is_marked
from pipeline.workflow import Event, ExternalUser, Trigger

PULL_REQUEST_ACTIONS = frozenset(
    {
        "assigned",
        "auto_merge_disabled",
        "auto_merge_enabled",
        "closed",
        "converted_to_draft",
        "demilestoned",
        "dequeued",
        "edited",
        "enqueued",
        "labeled",
        "locked",
        "milestoned",
        "opened",
        "ready_for_review",
        "reopened",
        "review_request_removed",
        "review_requested",
        "synchronize",
        "unassigned",
        "unlabeled",
        "unlocked",
    }
)


class PullRequestEvent(Event):
    action: str
    repo: str
    number: int
    title: str
    html_url: str
    draft: bool
    merged: bool
    author: ExternalUser | None  # None: a deleted account
    sender: ExternalUser  # who did what the event reports
    labels: tuple[str, ...]
    label: str | None  # the one that was added or removed
    reviewer: ExternalUser | None = None  # the person whose review was requested
    team: str | None = None  # the team whose review was requested, by name

    @property
    def key(self) -> str:
        """Return `acme/shop#42`, GitHub's notation."""
        return f"{self.repo}#{self.number}"


class CommentCommand(Event):
    """A command to us, written in a comment on a pull request."""

    repo: str
    number: int
    html_url: str  # of the pull request
    comment_id: int
    author: ExternalUser
    words: tuple[str, ...]  # what follows the command


class _User(BaseModel):
    id: int
    login: str

    def external(self) -> ExternalUser:
        # The number identifies the person; a login can be renamed and taken by another.
        return ExternalUser(provider="github", id=str(self.id), login=self.login)


class _Label(BaseModel):
    name: str


class _Repository(BaseModel):
    full_name: str


class _Team(BaseModel):
    name: str


class _Pull(BaseModel):
    number: int
    title: str
    html_url: str
    draft: bool
    merged: bool | None
    user: _User | None
    labels: list[_Label]


class _Delivery(BaseModel):
    action: str
    pull_request: _Pull
    repository: _Repository
    sender: _User
    label: _Label | None = None
    requested_reviewer: _User | None = None
    requested_team: _Team | None = None


class _Comment(BaseModel):
    id: int
    body: str
    user: _User | None
    performed_via_github_app: dict[str, Any] | None = None

    @property
    def by_hand(self) -> bool:
        """True if a person wrote it: what an app writes with a person's token bears the person's name as well."""
        return self.performed_via_github_app is None and not is_marked(self.body)


class _Issue(BaseModel):
    number: int
    html_url: str
    pull_request: dict[str, Any] | None = None


class _Commented(BaseModel):
    action: str
    issue: _Issue
    comment: _Comment
    repository: _Repository


COMMAND = re.compile(r"/aswhom[ \t]+(?P<name>[a-z]+)(?P<words>[^\r\n]*)")


def comment_command(name: str) -> Trigger[CommentCommand]:
    """Trigger on a new comment on a pull request that begins with `/aswhom NAME`; edits start nothing again.

    Comments that an app wrote in a person's name, ours or another's, start nothing either: an agent that may only
    comment could otherwise be talked into giving commands, and they would count as that person's.
    """

    def read(body: Mapping[str, Any]) -> CommentCommand | None:
        if body.get("action") != "created":
            return None
        said = _Commented.model_validate(body)
        found = COMMAND.match(said.comment.body)
        if found is None or found["name"] != name or not said.comment.by_hand:
            return None
        if said.issue.pull_request is None or said.comment.user is None:
            return None
        return CommentCommand(
            repo=said.repository.full_name,
            number=said.issue.number,
            html_url=said.issue.html_url,
            comment_id=said.comment.id,
            author=said.comment.user.external(),
            words=tuple(found["words"].split()),
        )

    return Trigger(source="github", event="issue_comment", read=read)


def pull_request(
    *actions: str, where: Callable[[PullRequestEvent], bool] = lambda event: True
) -> Trigger[PullRequestEvent]:
    """Trigger on a pull request's `opened`, `labeled` …: any of GitHub's actions. Raises TypeError for others.

    *where* declines events that the workflow would only ignore: they start no job.
    """
    unknown = set(actions) - PULL_REQUEST_ACTIONS
    if unknown or not actions:
        raise TypeError(f"pull_request() takes GitHub's actions, not {', '.join(sorted(unknown)) or 'none at all'}")

    def read(body: Mapping[str, Any]) -> PullRequestEvent | None:
        if body.get("action") not in actions:
            return None
        delivery = _Delivery.model_validate(body)
        pull = delivery.pull_request
        event = PullRequestEvent(
            action=delivery.action,
            repo=delivery.repository.full_name,
            number=pull.number,
            title=pull.title,
            html_url=pull.html_url,
            draft=pull.draft,
            merged=bool(pull.merged),
            author=pull.user.external() if pull.user else None,
            sender=delivery.sender.external(),
            labels=tuple(label.name for label in pull.labels),
            label=delivery.label.name if delivery.label else None,
            reviewer=delivery.requested_reviewer.external() if delivery.requested_reviewer else None,
            team=delivery.requested_team.name if delivery.requested_team else None,
        )
        return event if where(event) else None

    return Trigger(source="github", event="pull_request", read=read)
