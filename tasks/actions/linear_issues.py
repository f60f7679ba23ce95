"""Linear's issues: results of actions, and the shape of a response with the team's board."""

from __future__ import annotations

import re
from typing import Generic, TypeVar

from pydantic import BaseModel

from pipeline.action import Result

N = TypeVar("N")

FILED = "Pull request "  # begins the description of an issue that was filed for a pull request; the link follows


class Issue(Result):
    id: str
    identifier: str  # ENG-123
    url: str


class Issues(Result):
    issues: tuple[Issue, ...]
    more: bool = False  # there are others, not included here


class Tracked(Issue):
    """An issue that tracks a pull request, and the column it moves to when that is merged."""

    done: bool  # completed, canceled or a duplicate: nothing is left to do
    done_state_id: str | None  # None: its team has no column for completed issues


class TrackedIssues(Result):
    issues: tuple[Tracked, ...]
    more: bool = False  # there are others, not included here


class _PageInfo(BaseModel):
    hasNextPage: bool  # noqa: N815  (Linear's name)


class PageOf(BaseModel, Generic[N]):
    """One page of a GraphQL connection."""

    nodes: list[N]
    pageInfo: _PageInfo  # noqa: N815  (Linear's name)

    @property
    def more(self) -> bool:
        return self.pageInfo.hasNextPage


class _State(BaseModel):
    type: str


class _Column(BaseModel):
    id: str
    position: float


class _Columns(BaseModel):
    nodes: list[_Column]


class _Team(BaseModel):
    states: _Columns


class OnBoard(Issue):
    """An issue with its state, and its team's columns for completed issues."""

    description: str | None
    state: _State
    team: _Team

    def was_filed_for(self, pull: str) -> bool:
        """True if the description begins as it was filed for *pull*: anybody may choose such a title.

        It compares the address, since Linear normalizes Markdown with other brackets and escapes.
        """
        first, _, _ = (self.description or "").lstrip().partition("\n")
        page = pull.replace("#", "/pull/")
        return first.startswith(FILED) and re.search(rf"/{re.escape(page)}(?!\d)", first) is not None

    def tracked(self) -> Tracked:
        columns = sorted(self.team.states.nodes, key=lambda column: column.position)
        return Tracked(
            id=self.id,
            identifier=self.identifier,
            url=self.url,
            done=self.state.type in ("completed", "canceled", "duplicate"),
            done_state_id=columns[0].id if columns else None,
        )
