"""Linear's state, in memory. `lock` is held around each operation.

Ids are unique across organizations, like primary keys. A token sees only its organization's objects.
"""

import threading
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from deploy.sandbox.journal import Clock
from deploy.sandbox.linear.errors import conflict, invalid, not_found
from deploy.sandbox.linear.model import Attachment, Comment, Issue, Organization, State, Team, User


@dataclass(frozen=True)
class IdFilter:
    """`filter: { id: { eq, in } }`. An empty filter matches everything."""

    comparator: dict[str, Any]

    def takes(self, reference: str) -> bool:
        return reference == self.comparator.get("eq", reference) and reference in self.comparator.get("in", [reference])


@dataclass(frozen=True)
class TextFilter:
    """`{ eq, startsWith }`. An empty filter matches everything."""

    comparator: dict[str, Any]

    def takes(self, text: str) -> bool:
        return text == self.comparator.get("eq", text) and text.startswith(self.comparator.get("startsWith", ""))


# The states of a new team, as named in linear.app/docs/configuring-workflows.
STATES = (("Backlog", "backlog"), ("Todo", "unstarted"), ("In Progress", "started"), ("Done", "completed"))


class Store:
    def __init__(self, world: dict[str, Any], *, clock: Clock) -> None:
        self.lock = threading.RLock()
        self.now = clock
        self.began: datetime = clock()
        self.url: str = world["linear"]["url"]
        self.organizations: dict[str, Organization] = {}
        self.users: dict[str, User] = {}
        self.apps: dict[str, User] = {}  # organization id → the app as its member
        self.teams: dict[str, Team] = {}
        self.states: dict[str, State] = {}
        self.issues: dict[str, Issue] = {}
        self._comments: dict[str, Comment] = {}
        self._attachments: dict[str, Attachment] = {}
        for row in world["linear"]["organizations"]:
            self._add(row, app_name=world["github"]["app_slug"])

    def team(self, organization: Organization, reference: str) -> Team:
        team = self.teams.get(reference)
        if team is None or team.organization != organization:
            raise not_found("Team")
        return team

    def teams_of(self, organization: Organization) -> list[Team]:
        return [team for team in self.teams.values() if team.organization == organization]

    def issue(self, organization: Organization, reference: str) -> Issue:
        """Find an issue by UUID or by identifier (ENG-1)."""
        for issue in self.issues.values():
            if issue.team.organization == organization and reference in (issue.id, issue.identifier):
                return issue
        raise not_found("Issue")

    def comment(self, organization: Organization, reference: str) -> Comment:
        comment = self._comments.get(reference)
        if comment is None or comment.issue.team.organization != organization:
            raise not_found("Comment")
        return comment

    def issues_of(
        self, organization: Organization, ids: IdFilter, titles: TextFilter, *, archived: bool
    ) -> list[Issue]:
        mine = (issue for issue in self.issues.values() if issue.team.organization == organization)
        meant = (issue for issue in mine if ids.takes(issue.id) and titles.takes(issue.title))
        return [issue for issue in meant if archived or issue.archived_at is None]

    def states_of(self, team: Team, kinds: TextFilter) -> list[State]:
        return [state for state in self.states.values() if state.team == team and kinds.takes(state.type)]

    def comments_of(self, organization: Organization, ids: IdFilter) -> list[Comment]:
        mine = (comment for comment in self._comments.values() if comment.issue.team.organization == organization)
        return [comment for comment in mine if ids.takes(comment.id)]

    def attachments_for(self, organization: Organization, url: str, *, archived: bool) -> list[Attachment]:
        return [
            attachment
            for attachment in self._attachments.values()
            if attachment.url == url
            and attachment.issue.team.organization == organization
            and (archived or attachment.issue.archived_at is None)
        ]

    def create_issue(self, creator: User, fields: dict[str, Any]) -> Issue:
        team = self.team(creator.organization, fields["teamId"])
        if not fields.get("title"):
            raise invalid("title must not be empty.")
        assignee = self.users.get(fields["assigneeId"]) if fields.get("assigneeId") else None
        if fields.get("assigneeId") and (assignee is None or assignee.organization != creator.organization):
            raise not_found("User")
        now = self.now()
        issue = Issue(
            id=_new_id("Issue", fields.get("id"), self.issues),
            number=sum(issue.team == team for issue in self.issues.values()) + 1,
            team=team,
            title=fields["title"],
            description=fields.get("description"),
            label_ids=fields.get("labelIds") or [],
            priority=fields.get("priority") or 0,
            assignee=assignee,
            creator=creator,
            state=self.states_of(team, TextFilter({"eq": "backlog"}))[0],
            created_at=now,
            updated_at=now,
        )
        self.issues[issue.id] = issue
        return issue

    def update_issue(self, issue: Issue, fields: dict[str, Any]) -> None:
        if fields.get("stateId"):
            state = self.states.get(fields["stateId"])
            if state is None or state.team != issue.team:
                raise not_found("WorkflowState")
            issue.state = state
        issue.title = fields.get("title") or issue.title
        issue.description = fields.get("description", issue.description)
        issue.updated_at = self.now()

    def trash_issue(self, issue: Issue) -> None:
        issue.archived_at = issue.updated_at = self.now()

    def create_comment(self, user: User, fields: dict[str, Any]) -> Comment:
        if not fields.get("issueId") or not fields.get("body"):
            raise invalid("issueId and body are required.")
        issue = self.issue(user.organization, fields["issueId"])
        comment = Comment(
            id=_new_id("Comment", fields.get("id"), self._comments),
            issue=issue,
            body=fields["body"],
            user=user,
            created_at=self.now(),
        )
        self._comments[comment.id] = comment
        issue.comments.append(comment)
        return comment

    def attach(self, creator: User, fields: dict[str, Any]) -> Attachment:
        """Attach a URL. A second attachment of it to the same issue updates the first, as the schema says."""
        issue = self.issue(creator.organization, fields["issueId"])
        title, now = fields.get("title") or fields["url"], self.now()
        for attachment in issue.attachments:
            if attachment.url == fields["url"]:
                attachment.title, attachment.updated_at = title, now
                attachment.subtitle = fields.get("subtitle", attachment.subtitle)
                attachment.metadata = fields.get("metadata", attachment.metadata)
                return attachment
        attachment = Attachment(
            id=_new_id("Attachment", fields.get("id"), self._attachments),
            issue=issue,
            title=title,
            subtitle=fields.get("subtitle"),
            url=fields["url"],
            metadata=fields.get("metadata") or {},
            creator=creator,
            created_at=now,
            updated_at=now,
        )
        self._attachments[attachment.id] = attachment
        issue.attachments.append(attachment)
        return attachment

    def _add(self, row: dict[str, Any], *, app_name: str) -> None:
        organization = Organization(id=row["id"], name=row["name"], url_key=row["url_key"])
        self.organizations[organization.id] = organization
        for who in row["users"]:
            self.users[who["id"]] = User(**who, app=False, organization=organization)
        self.apps[organization.id] = User(
            id=str(uuid.uuid5(uuid.UUID(organization.id), "app")),
            name=app_name,
            email=f"{app_name}@oauthapp.linear.example",
            app=True,
            organization=organization,
        )
        for team in row["teams"]:
            added = self.teams[team["id"]] = Team(**team, organization=organization)
            for position, (name, kind) in enumerate(STATES):
                key = str(uuid.uuid5(uuid.UUID(added.id), kind))
                self.states[key] = State(id=key, name=name, type=kind, position=position, team=added)


def _new_id(entity: str, given: str | None, taken: dict[str, Any]) -> str:
    if given is None:
        return str(uuid.uuid4())
    try:
        chosen = uuid.UUID(given)
    except ValueError as error:
        raise invalid("id must be a UUID.") from error
    if chosen.version != 4:  # the schema: "The identifier in UUID v4 format."
        raise invalid("id must be a UUID in v4 format.")
    if str(chosen) in taken:
        raise conflict(entity, given)
    return str(chosen)
