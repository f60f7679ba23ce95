"""Linear's GraphQL API: issues, attachments and comments (linear.app/developers).

An issue or comment carries an id that we choose, and Linear accepts an id only once. An attempt without a response is
looked up by it, with a filter: an empty list says "not there" without an error to interpret. An attachment is unique by
issue and URL, so creating it twice updates it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.action import (
    Action,
    Call,
    Effect,
    EndpointClass,
    Facts,
    Judgement,
    Limits,
    R,
    Recovery,
    Request,
    Response,
    Result,
)
from pipeline.reading import parse
from tasks.actions import linear_queries as queries
from tasks.actions.github_results import PullRequest
from tasks.actions.linear_answers import judge_answer, limits
from tasks.actions.linear_ids import chosen_id, sought_ids
from tasks.actions.linear_issues import FILED, Issue, Issues, OnBoard, PageOf, Tracked, TrackedIssues

Id = Annotated[str, Field(min_length=1, max_length=100)]
IssueId = Annotated[Id, Field(description="the issue's id, a UUID, or its identifier, as ENG-123")]
TeamId = Annotated[Id, Field(description="the team's id, a UUID; not its name, nor its key")]
LabelIds = Annotated[tuple[Id, ...], Field(description="the labels' ids, UUIDs; not their names")]
Priority = Annotated[int, Field(ge=0, le=4, description="0 none, 1 urgent, 2 high, 3 medium, 4 low")]
# Linear publishes no limits for texts; these are ours.
Title = Annotated[str, Field(min_length=1, max_length=250, description="one line of plain text")]
Text = Annotated[str, Field(min_length=1, max_length=60_000, description="Markdown")]
Url = Annotated[str, Field(pattern=r"^https?://\S+$", max_length=2_000, description="an address, http:// or https://")]

# A single endpoint; requests and complexity are counted per user, and per app.
GRAPHQL = EndpointClass(name="graphql")


class IssueTemplate(BaseModel):
    """Defaults for filing issues: team, priority and labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    team_id: TeamId
    priority: Priority = 0
    label_ids: LabelIds = ()


class Made(Result):
    """An attachment or a comment that was created."""

    id: str
    url: str


class _Attached(BaseModel):
    issue: Issue


class LinearAction(Action[R]):
    """Base of Linear's actions: limits and the meaning of a response."""

    def judge(self, response: Response) -> Judgement:
        return judge_answer(response, effect=self.facts.effect)

    def limits(self, response: Response) -> Limits:
        return limits(response)


def _facts(
    effect: Effect, scope: str, *, recovery: Recovery, attribution: bool = False, additive: bool = False
) -> Facts:
    return Facts(
        provider="linear",
        scopes=frozenset({scope}),
        effect=effect,
        attribution=attribution,
        recovery=recovery,
        endpoints=GRAPHQL,
        additive=additive,
    )


def _graphql(query: str, **variables: Any) -> Request:
    return Request(method="POST", path="/graphql", json={"query": query.strip(), "variables": variables})


def title_prefix(pull: str) -> str:
    """Return the title prefix of issues that track a pull request (`acme/shop#42`)."""
    return f"{pull}: "


class CreateIssue(LinearAction[Issue]):
    """File an issue, as a person or as the workspace."""

    facts = _facts(Effect.WRITE, "issues:create", recovery=Recovery.CLIENT_ID, additive=True)

    team_id: TeamId
    title: Title
    description: Text
    priority: Priority = 0
    label_ids: LabelIds = ()

    @classmethod
    def for_pull(cls, pull: PullRequest, template: IssueTemplate, *, label: str) -> CreateIssue:
        """Build the issue that tracks one label of a pull request.

        It uses only immutable facts: two deliveries about one pull request must ask for the same issue (`once=`), and
        the title and other labels may be edited between them.
        """
        return cls(
            team_id=template.team_id,
            title=f"{title_prefix(pull.key)}{label}",
            description=f"{FILED}[{pull.key}]({pull.html_url})",
            priority=template.priority,
            label_ids=template.label_ids,
        )

    def request(self, call: Call) -> Request:
        fields = {
            "id": chosen_id(call),
            "teamId": self.team_id,
            "title": self.title,
            "description": self.description,
            "priority": self.priority,
            "labelIds": list(self.label_ids),
        }
        return _graphql(queries.CREATE_ISSUE, input=fields)

    def read(self, response: Response) -> Issue:
        return parse(response, Issue, at=("data", "issueCreate", "issue"))

    def probe(self, call: Call) -> Request:
        return _graphql(queries.FIND_ISSUE, ids=sought_ids(call))

    def found(self, response: Response, call: Call) -> Issue | None:
        nodes = parse(response, list[Issue], at=("data", "issues", "nodes"))
        return next((issue for issue in nodes if issue.id in sought_ids(call)), None)

    def external_id(self, result: Issue) -> str:
        return result.id


class FindIssuesOfPull(LinearAction[TrackedIssues]):
    """Find the issues that track a pull request, by the title and first line they were filed with; at most fifty.

    Issues that were since retitled, or whose description no longer begins with the link, are not found.
    """

    facts = _facts(Effect.READ, "read", recovery=Recovery.IDEMPOTENT)

    pull: Annotated[
        str, Field(pattern=r"^[^\s#]+/[^\s#]+#\d+$", max_length=250, description="owner/name#number, as acme/shop#42")
    ]

    def request(self, call: Call) -> Request:
        return _graphql(queries.ISSUES_OF_PULL, title=title_prefix(self.pull))

    def read(self, response: Response) -> TrackedIssues:
        found = parse(response, PageOf[OnBoard], at=("data", "issues"))
        filed = tuple(issue.tracked() for issue in found.nodes if issue.was_filed_for(self.pull))
        return TrackedIssues(issues=filed, more=found.more)


class MoveIssue(LinearAction[Issue]):
    """Move an issue to another column of its team's board. Repeating it changes nothing."""

    facts = _facts(Effect.WRITE, "write", recovery=Recovery.IDEMPOTENT)

    issue_id: IssueId
    state_id: Annotated[Id, Field(description="the id, a UUID, of a state of the issue's own team")]

    @classmethod
    def to_done(cls, issue: Tracked) -> MoveIssue | None:
        """Build the move to the first completed column; None: nothing is left to do, or there is no such column."""
        if issue.done or issue.done_state_id is None:
            return None
        return cls(issue_id=issue.id, state_id=issue.done_state_id)

    def request(self, call: Call) -> Request:
        return _graphql(queries.UPDATE_ISSUE, id=self.issue_id, input={"stateId": self.state_id})

    def read(self, response: Response) -> Issue:
        return parse(response, Issue, at=("data", "issueUpdate", "issue"))

    def external_id(self, result: Issue) -> str:
        return result.id


class FindByAttachmentUrl(LinearAction[Issues]):
    """Find the issues that a URL, for example a pull request's, is attached to; the first fifty."""

    facts = _facts(Effect.READ, "read", recovery=Recovery.IDEMPOTENT)

    url: Url

    def request(self, call: Call) -> Request:
        return _graphql(queries.ATTACHMENTS_FOR_URL, url=self.url)

    def read(self, response: Response) -> Issues:
        attached = parse(response, PageOf[_Attached], at=("data", "attachmentsForURL"))
        return Issues(issues=tuple(attachment.issue for attachment in attached.nodes), more=attached.more)


class AttachUrl(LinearAction[Made]):
    """Attach a URL to an issue; the same URL again updates the attachment."""

    facts = _facts(Effect.WRITE, "write", recovery=Recovery.IDEMPOTENT)

    issue_id: IssueId
    url: Url
    title: Title

    def request(self, call: Call) -> Request:
        # Without an id of ours: a second time, Linear would refuse the id instead of updating by URL.
        return _graphql(
            queries.CREATE_ATTACHMENT, input={"issueId": self.issue_id, "url": self.url, "title": self.title}
        )

    def read(self, response: Response) -> Made:
        return parse(response, Made, at=("data", "attachmentCreate", "attachment"))

    def external_id(self, result: Made) -> str:
        return result.id


class Comment(LinearAction[Made]):
    """Comment on an issue. A comment speaks for a person, so it must be attributable to one."""

    facts = _facts(Effect.WRITE, "comments:create", recovery=Recovery.CLIENT_ID, attribution=True, additive=True)

    issue_id: IssueId
    body: Text

    def request(self, call: Call) -> Request:
        return _graphql(
            queries.CREATE_COMMENT, input={"id": chosen_id(call), "issueId": self.issue_id, "body": self.body}
        )

    def read(self, response: Response) -> Made:
        return parse(response, Made, at=("data", "commentCreate", "comment"))

    def probe(self, call: Call) -> Request:
        return _graphql(queries.FIND_COMMENT, ids=sought_ids(call))

    def found(self, response: Response, call: Call) -> Made | None:
        nodes = parse(response, list[Made], at=("data", "comments", "nodes"))
        return next((comment for comment in nodes if comment.id in sought_ids(call)), None)

    def external_id(self, result: Made) -> str:
        return result.id


class Notice(Comment):
    """Comment on an issue about what Aswhom itself did, in the platform's name rather than a person's."""

    # Not a tool: an agent could use it to bypass the attribution that `Comment` requires.
    facts = replace(Comment.facts, attribution=False, tool=False)
