"""Linear's state, in memory. `lock` is held around each operation.

Ids are one space for everyone, as primary keys are; what a token sees is its organization's.
"""

import threading
import uuid
from datetime import datetime
from typing import Any

from deploy.sandbox.journal import Clock
from deploy.sandbox.linear.errors import conflict, invalid, not_found
from deploy.sandbox.linear.model import Attachment, Comment, Issue, Organization, Team, User


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
        self.issues: dict[str, Issue] = {}
        self._comments: dict[str, Comment] = {}
        self._attachments: dict[str, Attachment] = {}
        for row in world["linear"]["organizations"]:
            self._add(row, app_name=world["github"]["app_slug"])

    def team(self, organization: Organization, id: str) -> Team:
        team = self.teams.get(id)
        if team is None or team.organization != organization:
            raise not_found("Team")
        return team

    def teams_of(self, organization: Organization) -> list[Team]:
        return [team for team in self.teams.values() if team.organization == organization]

    def issue(self, organization: Organization, reference: str) -> Issue:
        """By UUID or by identifier (ENG-1)."""
        for issue in self.issues.values():
            if issue.team.organization == organization and reference in (issue.id, issue.identifier):
                return issue
        raise not_found("Issue")

    def comment(self, organization: Organization, id: str) -> Comment:
        comment = self._comments.get(id)
        if comment is None or comment.issue.team.organization != organization:
            raise not_found("Comment")
        return comment

    def attachments_for(self, organization: Organization, url: str, *, archived: bool) -> list[Attachment]:
        return [
            attachment
            for attachment in self._attachments.values()
            if attachment.url == url
            and attachment.issue.team.organization == organization
            and (archived or attachment.issue.archived_at is None)
        ]

    def create_issue(self, creator: User, input: dict[str, Any]) -> Issue:
        team = self.team(creator.organization, input["teamId"])
        if not input.get("title"):
            raise invalid("title must not be empty.")
        assignee = self.users.get(input["assigneeId"]) if input.get("assigneeId") else None
        if input.get("assigneeId") and (assignee is None or assignee.organization != creator.organization):
            raise not_found("User")
        now = self.now()
        issue = Issue(
            id=_new_id("Issue", input.get("id"), self.issues),
            number=sum(issue.team == team for issue in self.issues.values()) + 1,
            team=team,
            title=input["title"],
            description=input.get("description"),
            label_ids=input.get("labelIds") or [],
            priority=input.get("priority") or 0,
            assignee=assignee,
            creator=creator,
            created_at=now,
            updated_at=now,
        )
        self.issues[issue.id] = issue
        return issue

    def update_issue(self, issue: Issue, input: dict[str, Any]) -> None:
        issue.title = input.get("title") or issue.title
        issue.description = input.get("description", issue.description)
        issue.updated_at = self.now()

    def trash_issue(self, issue: Issue) -> None:
        issue.archived_at = issue.updated_at = self.now()

    def create_comment(self, user: User, input: dict[str, Any]) -> Comment:
        if not input.get("issueId") or not input.get("body"):
            raise invalid("issueId and body are required.")
        issue = self.issue(user.organization, input["issueId"])
        id = _new_id("Comment", input.get("id"), self._comments)
        comment = Comment(id=id, issue=issue, body=input["body"], user=user, created_at=self.now())
        self._comments[id] = comment
        issue.comments.append(comment)
        return comment

    def attach(self, creator: User, input: dict[str, Any]) -> Attachment:
        """A second attachment of the same URL to the same issue updates the first (as the schema says)."""
        issue = self.issue(creator.organization, input["issueId"])
        title, now = input.get("title") or input["url"], self.now()
        for attachment in issue.attachments:
            if attachment.url == input["url"]:
                attachment.title, attachment.updated_at = title, now
                attachment.subtitle = input.get("subtitle", attachment.subtitle)
                attachment.metadata = input.get("metadata", attachment.metadata)
                return attachment
        attachment = Attachment(
            id=_new_id("Attachment", input.get("id"), self._attachments),
            issue=issue,
            title=title,
            subtitle=input.get("subtitle"),
            url=input["url"],
            metadata=input.get("metadata") or {},
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
            self.teams[team["id"]] = Team(**team, organization=organization)


def _new_id(entity: str, given: str | None, taken: dict[str, Any]) -> str:
    if given is None:
        return str(uuid.uuid4())
    try:
        id = uuid.UUID(given)
    except ValueError as error:
        raise invalid("id must be a UUID.") from error
    if id.version != 4:  # the schema: "The identifier in UUID v4 format."
        raise invalid("id must be a UUID in v4 format.")
    if str(id) in taken:
        raise conflict(entity, given)
    return str(id)
