"""Results of GitHub's actions."""

from __future__ import annotations

from datetime import datetime

from pipeline.action import Result
from pipeline.workflow import ExternalUser


class PullRequest(Result):
    repo: str
    number: int
    title: str
    html_url: str
    state: str
    draft: bool
    merged: bool
    author: ExternalUser | None  # None: a deleted account
    labels: tuple[str, ...]

    @property
    def key(self) -> str:
        """Return `acme/shop#42`, GitHub's notation."""
        return f"{self.repo}#{self.number}"


class PullSummary(Result):
    number: int
    title: str
    html_url: str
    author: str | None
    draft: bool
    created_at: datetime


class Pulls(Result):
    pulls: tuple[PullSummary, ...]
    more: bool  # the page was full: there may be others


class Made(Result):
    """An issue or a comment that was created."""

    id: int
    html_url: str


class IssueMade(Made):
    number: int


class IssueUpdated(Result):
    id: int
    number: int
    html_url: str
    title: str
    state: str


class LabelNames(Result):
    names: tuple[str, ...]
