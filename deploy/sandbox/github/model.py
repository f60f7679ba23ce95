"""GitHub's data: installations, their tokens, repositories, issues, pull requests, comments."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Actor:
    """A login that can author something: a user, an organization or the app's bot."""

    login: str
    id: int
    type: str = "User"  # or Bot, Organization


@dataclass(kw_only=True, eq=False)
class Installation:
    id: int
    account: Actor
    repositories: list[str]
    permissions: dict[str, str]
    created_at: datetime
    updated_at: datetime
    suspended_at: datetime | None = None
    suspended_by: Actor | None = None
    deleted: bool = False


@dataclass(kw_only=True, eq=False)
class InstallationToken:
    installation: Installation
    repositories: frozenset[str]
    permissions: dict[str, str]
    expires_at: datetime
    alive: bool = True


@dataclass(kw_only=True, eq=False)
class Repository:
    id: int
    full_name: str
    owner: Actor
    created_at: datetime
    labels: dict[str, int] = field(default_factory=dict)  # name → id
    items: dict[int, "Item"] = field(default_factory=dict)  # number → issue or pull request

    @property
    def name(self) -> str:
        return self.full_name.partition("/")[2]


@dataclass(kw_only=True, eq=False)
class Item:
    """An issue, or a pull request: they share numbers, labels and comments."""

    id: int
    number: int
    repository: Repository
    title: str
    body: str | None
    author: Actor
    via_app: bool
    created_at: datetime
    updated_at: datetime
    is_pull: bool
    labels: list[str] = field(default_factory=list)
    comments: list["Comment"] = field(default_factory=list)
    merged_by: Actor | None = None
    merged_at: datetime | None = None
    closed_at: datetime | None = None
    state_reason: str | None = None  # of an issue that was closed or reopened

    @property
    def key(self) -> str:
        return f"{self.repository.full_name}#{self.number}"

    @property
    def state(self) -> str:
        return "closed" if self.closed_at else "open"


@dataclass(kw_only=True, eq=False)
class Comment:
    id: int
    item: Item
    body: str
    author: Actor
    via_app: bool
    created_at: datetime

    @property
    def updated_at(self) -> datetime:
        return self.created_at  # comments are never edited here
