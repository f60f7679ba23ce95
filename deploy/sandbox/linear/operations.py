"""The operations served, each as the bearer of one token sees it."""

import itertools
from collections.abc import Callable
from typing import Any

from deploy.sandbox.linear.errors import forbidden
from deploy.sandbox.linear.model import Issue, User
from deploy.sandbox.linear.store import Store
from deploy.sandbox.linear.views import Json, Views, connection
from deploy.sandbox.surface import touched

SYNC_IDS = itertools.count(1)


def operations(store: Store, viewer: User, scopes: frozenset[str]) -> dict[str, Callable[..., Json]]:
    """The root fields of queries and mutations, by name."""
    views, organization = Views(store, viewer), viewer.organization

    def needs(*any_of: str) -> None:
        if not scopes & set(any_of):
            raise forbidden(any_of[0])

    def changed(issue: Issue, /, **payload: Any) -> Json:
        touched(issue.identifier)
        return {"success": True, "lastSyncId": next(SYNC_IDS), **payload}

    def read_viewer(info: Any) -> Json:
        needs("read")
        return views.user(viewer)

    def read_organization(info: Any) -> Json:
        needs("read")
        return views.organization(organization)

    def read_teams(info: Any, **page: Any) -> Json:
        needs("read")
        return connection(store.teams_of(organization), views.team, **page)

    def read_team(info: Any, *, id: str) -> Json:
        needs("read")
        return views.team(store.team(organization, id))

    def read_issue(info: Any, *, id: str) -> Json:
        needs("read")
        issue = store.issue(organization, id)
        touched(issue.identifier, effect=False)
        return views.issue(issue)

    def read_comment(info: Any, *, id: str = "") -> Json:
        needs("read")
        return views.comment(store.comment(organization, id))

    def attachments_for_url(info: Any, *, url: str, includeArchived: bool | None = None, **page: Any) -> Json:
        needs("read")
        found = store.attachments_for(organization, url, archived=bool(includeArchived))
        return connection(found, views.attachment, **page)

    def issue_create(info: Any, *, input: Json) -> Json:
        needs("write", "issues:create")
        issue = store.create_issue(viewer, input)
        return changed(issue, issue=views.issue(issue))

    def issue_update(info: Any, *, id: str, input: Json) -> Json:
        needs("write")
        issue = store.issue(organization, id)
        store.update_issue(issue, input)
        return changed(issue, issue=views.issue(issue))

    def issue_delete(info: Any, *, id: str) -> Json:
        needs("write")
        issue = store.issue(organization, id)
        store.trash_issue(issue)
        return changed(issue, entity=views.issue(issue))

    def comment_create(info: Any, *, input: Json) -> Json:
        needs("write", "comments:create")
        comment = store.create_comment(viewer, input)
        return changed(comment.issue, comment=views.comment(comment))

    def attachment_create(info: Any, *, input: Json) -> Json:
        needs("write")
        attachment = store.attach(viewer, input)
        return changed(attachment.issue, attachment=views.attachment(attachment))

    def attachment_link_url(info: Any, **input: Any) -> Json:
        return attachment_create(info, input=input)

    return {
        "viewer": read_viewer,
        "organization": read_organization,
        "teams": read_teams,
        "team": read_team,
        "issue": read_issue,
        "comment": read_comment,
        "attachmentsForURL": attachments_for_url,
        "issueCreate": issue_create,
        "issueUpdate": issue_update,
        "issueDelete": issue_delete,
        "commentCreate": comment_create,
        "attachmentCreate": attachment_create,
        "attachmentLinkURL": attachment_link_url,
    }
