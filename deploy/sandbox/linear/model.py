"""Linear's data: organizations with teams and people, issues, comments, attachments."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Organization:
    id: str
    name: str
    url_key: str


@dataclass(frozen=True, kw_only=True)
class User:
    """A person, or the app as a member of the organization."""

    id: str
    name: str
    email: str
    app: bool
    organization: Organization


@dataclass(frozen=True, kw_only=True)
class Team:
    id: str
    key: str
    name: str
    organization: Organization


@dataclass(frozen=True, kw_only=True)
class State:
    """A column of a team's board."""

    id: str
    name: str
    type: str
    position: int
    team: Team


@dataclass(kw_only=True, eq=False)
class Issue:
    id: str
    number: int
    team: Team
    title: str
    description: str | None
    label_ids: list[str]
    priority: int
    assignee: User | None
    creator: User
    state: State
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None = None
    comments: list["Comment"] = field(default_factory=list)
    attachments: list["Attachment"] = field(default_factory=list)

    @property
    def identifier(self) -> str:
        return f"{self.team.key}-{self.number}"


@dataclass(kw_only=True, eq=False)
class Comment:
    id: str
    issue: Issue
    body: str
    user: User
    created_at: datetime


@dataclass(kw_only=True, eq=False)
class Attachment:
    id: str
    issue: Issue
    title: str
    subtitle: str | None
    url: str
    metadata: dict[str, Any]
    creator: User
    created_at: datetime
    updated_at: datetime
