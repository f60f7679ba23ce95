"""GitHub's REST API: pull requests, issues, comments and labels (docs.github.com/rest).

Scopes name GitHub App permissions. A user token's `scope` is always empty, so scopes are compared with the
installation's permissions, never with the token response.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

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
    UnreadableAnswer,
    judge_status,
)
from pipeline.reading import parse
from tasks.actions import github_answers as answers
from tasks.actions.github_fields import Body, Label, Number, Repo, Title
from tasks.actions.github_marker import PAGE, marked, since, stamp
from tasks.actions.github_results import IssueMade, IssueUpdated, LabelNames, Made, PullRequest, Pulls, PullSummary

# Authors find an action's fields and results beside it.
__all__ = [
    "CORE",
    "HEADERS",
    "AddLabels",
    "Body",
    "Comment",
    "CreateIssue",
    "GetPull",
    "GitHubAction",
    "IssueMade",
    "IssueUpdated",
    "Label",
    "LabelNames",
    "ListPulls",
    "Made",
    "Number",
    "PullRequest",
    "PullSummary",
    "Pulls",
    "Repo",
    "Title",
    "UpdateIssue",
]

# Everything except search, GraphQL and a few others; limited per user, and per installation.
CORE = EndpointClass(name="core")

HEADERS = {"accept": "application/vnd.github+json", "x-github-api-version": "2022-11-28"}


class GitHubAction(Action[R]):
    """Base of GitHub's actions: headers, limits and the meaning of a response."""

    def judge(self, response: Response) -> Judgement:
        for says in (answers.rate_limited, answers.moved, answers.suspended, answers.refused):
            if (told := says(response)) is not None:
                return told
        return judge_status(response, effect=self.facts.effect)

    def limits(self, response: Response) -> Limits:
        return answers.limits(response)


def _facts(
    effect: Effect, scope: str, *, recovery: Recovery, attribution: bool = False, additive: bool = False
) -> Facts:
    return Facts(
        provider="github",
        scopes=frozenset({scope}),
        effect=effect,
        attribution=attribution,
        recovery=recovery,
        endpoints=CORE,
        additive=additive,
    )


def _get(path: str, **params: str) -> Request:
    return Request(method="GET", path=path, params=params, headers=HEADERS)


def _post(path: str, body: dict[str, Any]) -> Request:
    return Request(method="POST", path=path, json=body, headers=HEADERS)


class GetPull(GitHubAction[PullRequest]):
    """Read one pull request."""

    facts = _facts(Effect.READ, "pull_requests:read", recovery=Recovery.IDEMPOTENT)

    repo: Repo
    number: Number

    def confined_to(self) -> str:
        return self.repo

    def request(self, call: Call) -> Request:
        return _get(f"/repos/{self.repo}/pulls/{self.number}")

    def read(self, response: Response) -> PullRequest:
        pull = parse(response, answers.WholePull)
        return PullRequest(
            repo=pull.base.repo.full_name,
            number=pull.number,
            title=pull.title,
            html_url=pull.html_url,
            state=pull.state,
            draft=pull.draft,
            merged=pull.merged,
            author=pull.user.external() if pull.user else None,
            labels=tuple(label.name for label in pull.labels),
        )


class ListPulls(GitHubAction[Pulls]):
    """List a repository's pull requests, one page at a time; oldest first, unless `newest_first`."""

    facts = _facts(Effect.READ, "pull_requests:read", recovery=Recovery.IDEMPOTENT)

    repo: Repo
    state: Literal["open", "closed", "all"] = Field(default="open", description="which of them; closed has the merged")
    newest_first: bool = Field(default=False, description="the newest first, rather than the oldest")
    size: int = Field(default=PAGE, ge=1, le=PAGE, description="how many a page has")
    page: int = Field(default=1, ge=1, le=10_000, description="which page: the next one where `more` was true")

    def confined_to(self) -> str:
        return self.repo

    def request(self, call: Call) -> Request:
        path = f"/repos/{self.repo}/pulls"
        direction = "desc" if self.newest_first else "asc"
        turn = {"per_page": str(self.size), "page": str(self.page)}
        return _get(path, state=self.state, sort="created", direction=direction, **turn)

    def read(self, response: Response) -> Pulls:
        pulls = parse(response, list[answers.Pull])
        return Pulls(
            pulls=tuple(
                PullSummary(
                    number=pull.number,
                    title=pull.title,
                    html_url=pull.html_url,
                    author=pull.user.login if pull.user else None,
                    draft=pull.draft,
                    created_at=pull.created_at,
                )
                for pull in pulls
            ),
            more=len(pulls) >= self.size,
        )


class Comment(GitHubAction[Made]):
    """Comment on an issue or pull request. A comment speaks for a person, so it must be attributable to one."""

    facts = _facts(Effect.WRITE, "issues:write", recovery=Recovery.PROBE, attribution=True, additive=True)

    repo: Repo
    number: Number
    body: Body

    def request(self, call: Call) -> Request:
        return _post(self._path, {"body": marked(self.body, call)})

    def read(self, response: Response) -> Made:
        return _made(parse(response, answers.Comment))

    def probe(self, call: Call) -> Request:
        # GitHub orders comments only by ascending id: without `since` the first page would be the issue's oldest
        # comments.
        return _get(self._path, since=stamp(since(call)), per_page=str(PAGE))

    def found(self, response: Response, call: Call) -> Made | None:
        comments = parse(response, list[answers.Comment])
        for comment in comments:
            if call.marker in comment.body:
                return _made(comment)
        if len(comments) >= PAGE:
            raise UnreadableAnswer(f"more than {PAGE} comments since the step opened: ours may be among the rest")
        return None

    def external_id(self, result: Made) -> str:
        return str(result.id)

    @property
    def _path(self) -> str:
        return f"/repos/{self.repo}/issues/{self.number}/comments"


def _made(comment: answers.Comment) -> Made:
    return Made(id=comment.id, html_url=comment.html_url)


class CreateIssue(GitHubAction[IssueMade]):
    """File an issue."""

    facts = _facts(Effect.WRITE, "issues:write", recovery=Recovery.PROBE, additive=True)

    repo: Repo
    title: Title
    body: Body
    labels: tuple[Label, ...] = Field(default=(), description="names of labels")

    def confined_to(self) -> str:
        return self.repo

    def request(self, call: Call) -> Request:
        body = {"title": self.title, "body": marked(self.body, call), "labels": list(self.labels)}
        return _post(f"/repos/{self.repo}/issues", body)

    def read(self, response: Response) -> IssueMade:
        return _filed(parse(response, answers.Issue))

    def probe(self, call: Call) -> Request:
        return _get(
            f"/repos/{self.repo}/issues",
            state="all",  # someone may have closed it already
            sort="created",
            direction="desc",
            since=stamp(since(call)),
            per_page=str(PAGE),
        )

    def found(self, response: Response, call: Call) -> IssueMade | None:
        issues = parse(response, list[answers.Issue])
        for issue in issues:
            if call.marker in (issue.body or ""):
                return _filed(issue)
        # Newest first, so a full page that reaches back before the step has shown everything relevant.
        if len(issues) >= PAGE and issues[-1].created_at >= since(call):
            raise UnreadableAnswer(f"more than {PAGE} issues since the step opened: ours may be among the rest")
        return None

    def external_id(self, result: IssueMade) -> str:
        return str(result.id)


def _filed(issue: answers.Issue) -> IssueMade:
    return IssueMade(id=issue.id, html_url=issue.html_url, number=issue.number)


class UpdateIssue(GitHubAction[IssueUpdated]):
    """Change the title or the state of an issue or pull request.

    What is not given stays. It cannot replace the text. After a lost response the change is sent again, over what a
    person changed meanwhile.
    """

    # No `body`: it would replace the text that ends in the marker, and `CreateIssue` would file its issue again.
    facts = _facts(Effect.WRITE, "issues:write", recovery=Recovery.IDEMPOTENT)

    repo: Repo
    number: Number
    title: Title | None = Field(default=None, description="the new title")
    state: Literal["open", "closed"] | None = Field(default=None, description="closed: close it; open: reopen it")
    state_reason: Literal["completed", "not_planned"] | None = Field(
        default=None, description="why it is closed: only together with the state closed"
    )

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.title is None and self.state is None:
            raise ValueError("give a title or a state")
        if self.state_reason is not None and self.state != "closed":
            raise ValueError("state_reason is only for the state closed")
        return self

    def confined_to(self) -> str:
        return self.repo

    def request(self, call: Call) -> Request:
        changes = self.model_dump(include={"title", "state", "state_reason"}, exclude_none=True)
        path = f"/repos/{self.repo}/issues/{self.number}"
        return Request(method="PATCH", path=path, json=changes, headers=HEADERS)

    def read(self, response: Response) -> IssueUpdated:
        issue = parse(response, answers.WholeIssue)
        return IssueUpdated(
            id=issue.id, number=issue.number, html_url=issue.html_url, title=issue.title, state=issue.state
        )

    def external_id(self, result: IssueUpdated) -> str:
        return str(result.id)


class AddLabels(GitHubAction[LabelNames]):
    """Add labels to an issue or pull request; labels already present stay."""

    facts = _facts(Effect.WRITE, "issues:write", recovery=Recovery.IDEMPOTENT, additive=True)

    repo: Repo
    number: Number
    labels: Annotated[tuple[Label, ...], Field(min_length=1, description="names of labels")]

    def confined_to(self) -> str:
        return self.repo

    def request(self, call: Call) -> Request:
        return _post(f"/repos/{self.repo}/issues/{self.number}/labels", {"labels": list(self.labels)})

    def read(self, response: Response) -> LabelNames:
        return LabelNames(names=tuple(label.name for label in parse(response, list[answers.Label])))
