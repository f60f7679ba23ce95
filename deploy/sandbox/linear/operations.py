"""The served operations, from the viewpoint of one token's bearer."""

import itertools
from collections.abc import Callable
from typing import Any

from deploy.sandbox.linear.errors import forbidden
from deploy.sandbox.linear.model import Issue, User
from deploy.sandbox.linear.store import IdFilter, Store, TextFilter
from deploy.sandbox.linear.views import Json, Views, connection
from deploy.sandbox.surface import touched

SYNC_IDS = itertools.count(1)


def operations(store: Store, viewer: User, scopes: frozenset[str]) -> dict[str, Callable[..., Json]]:
    """Return the root fields of queries and mutations by name."""
    views, organization = Views(store, viewer), viewer.organization

    def needs(*any_of: str) -> None:
        if not scopes & set(any_of):
            raise forbidden(any_of[0])

    def changed(issue: Issue, /, **payload: Any) -> Json:
        touched(issue.identifier)
        return {"success": True, "lastSyncId": next(SYNC_IDS), **payload}

    def read_viewer() -> Json:
        needs("read")
        return views.user(viewer)

    def read_organization() -> Json:
        needs("read")
        return views.organization(organization)

    def read_teams(**page: Any) -> Json:
        needs("read")
        return connection(store.teams_of(organization), views.team, **page)

    def read_team(*, reference: str) -> Json:
        needs("read")
        return views.team(store.team(organization, reference))

    def read_issue(*, reference: str) -> Json:
        needs("read")
        issue = store.issue(organization, reference)
        touched(issue.identifier, effect=False)
        return views.issue(issue)

    def read_issues(*, chosen: Json | None = None, archived: bool | None = None, **page: Any) -> Json:
        needs("read")
        titles = TextFilter((chosen or {}).get("title") or {})
        found = store.issues_of(organization, _ids(chosen), titles, archived=bool(archived))
        return connection(found, views.issue, **page)

    def read_comments(*, chosen: Json | None = None, **page: Any) -> Json:
        needs("read")
        return connection(store.comments_of(organization, _ids(chosen)), views.comment, **page)

    def read_comment(*, reference: str = "") -> Json:
        needs("read")
        return views.comment(store.comment(organization, reference))

    def attachments_for_url(*, url: str, archived: bool | None = None, **page: Any) -> Json:
        needs("read")
        found = store.attachments_for(organization, url, archived=bool(archived))
        return connection(found, views.attachment, **page)

    def issue_create(*, fields: Json) -> Json:
        needs("write", "issues:create")
        issue = store.create_issue(viewer, fields)
        return changed(issue, issue=views.issue(issue))

    def issue_update(*, reference: str, fields: Json) -> Json:
        needs("write")
        issue = store.issue(organization, reference)
        store.update_issue(issue, fields)
        return changed(issue, issue=views.issue(issue))

    def issue_delete(*, reference: str) -> Json:
        needs("write")
        issue = store.issue(organization, reference)
        store.trash_issue(issue)
        return changed(issue, entity=views.issue(issue))

    def comment_create(*, fields: Json) -> Json:
        needs("write", "comments:create")
        comment = store.create_comment(viewer, fields)
        return changed(comment.issue, comment=views.comment(comment))

    def attachment_create(*, fields: Json) -> Json:
        needs("write")
        attachment = store.attach(viewer, fields)
        return changed(attachment.issue, attachment=views.attachment(attachment))

    def attachment_link_url(*, reference: str | None = None, **fields: Any) -> Json:
        return attachment_create(fields={"id": reference, **fields})

    return {
        "viewer": read_viewer,
        "organization": read_organization,
        "teams": read_teams,
        "team": read_team,
        "issue": read_issue,
        "issues": read_issues,
        "comment": read_comment,
        "comments": read_comments,
        "attachmentsForURL": attachments_for_url,
        "issueCreate": issue_create,
        "issueUpdate": issue_update,
        "issueDelete": issue_delete,
        "commentCreate": comment_create,
        "attachmentCreate": attachment_create,
        "attachmentLinkURL": attachment_link_url,
    }


def _ids(chosen: Json | None) -> IdFilter:
    return IdFilter((chosen or {}).get("id") or {})
