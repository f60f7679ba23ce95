"""GitHub's JSON with the published fields, in shapes shared by REST and webhooks.

The webhook schemas forbid unknown fields, so a field is here only if both allow it.
"""

from datetime import datetime
from typing import Any

from deploy.sandbox.github.model import Actor, Comment, Installation, Item, Repository
from deploy.sandbox.github.urls import REPOSITORY_URLS, USER_URLS

Json = dict[str, Any]

PULL_ONLY = {  # fields of a single pull request that lists omit
    "merged": False,
    "mergeable": True,
    "rebaseable": True,
    "mergeable_state": "clean",
    "merged_by": None,
    "review_comments": 0,
    "maintainer_can_modify": False,
    "commits": 1,
    "additions": 12,
    "deletions": 3,
    "changed_files": 2,
}

REACTIONS = ("+1", "-1", "laugh", "confused", "heart", "hooray", "eyes", "rocket")


class Shapes:
    """Shapes that depend on the API's URL and the app's identity."""

    def __init__(self, github: Json) -> None:
        self._url: str = github["url"]
        self._github = github

    def user(self, actor: Actor) -> Json:
        here = f"{self._url}/users/{actor.login}"
        return {
            "login": actor.login,
            "id": actor.id,
            "node_id": f"U_{actor.id}",
            "avatar_url": f"{self._url}/avatars/{actor.id}",
            "gravatar_id": "",
            "url": here,
            "html_url": f"{self._url}/{actor.login}",
            **{name: here + path for name, path in USER_URLS.items()},
            "type": actor.type,
            "site_admin": False,
        }

    def team(self, name: str) -> Json:
        """Return a team of that name. Teams have no accounts here."""
        slug = name.lower().replace(" ", "-")
        here = f"{self._url}/organizations/1/team/1"
        return {
            "name": name,
            "id": 1,
            "node_id": "T_1",
            "slug": slug,
            "description": None,
            "privacy": "closed",
            "notification_setting": "notifications_enabled",
            "permission": "pull",
            "url": here,
            "html_url": f"{self._url}/orgs/acme/teams/{slug}",
            "members_url": f"{here}/members{{/member}}",
            "repositories_url": f"{here}/repos",
            "parent": None,
        }

    def public_user(self, actor: Actor, account: str, since: datetime) -> Json:
        counts = dict.fromkeys(("followers", "following", "public_gists", "public_repos"), 0)
        blanks = dict.fromkeys(("bio", "blog", "email", "hireable", "location", "name"))
        dates = {"created_at": stamp(since), "updated_at": stamp(since)}
        return self.user(actor) | blanks | counts | dates | {"company": account, "user_view_type": "public"}

    def repository(self, repository: Repository) -> Json:
        here, page = f"{self._url}/repos/{repository.full_name}", f"{self._url}/{repository.full_name}"
        open_items = len(repository.items)
        return {
            "id": repository.id,
            "node_id": f"R_{repository.id}",
            "name": repository.name,
            "full_name": repository.full_name,
            "private": True,
            "owner": self.user(repository.owner),
            "html_url": page,
            "description": None,
            "fork": False,
            "url": here,
            **{name: here + path for name, path in REPOSITORY_URLS.items()},
            **dict.fromkeys(("created_at", "updated_at", "pushed_at"), stamp(repository.created_at)),
            "git_url": f"git://127.0.0.1/{repository.full_name}.git",
            "ssh_url": f"git@127.0.0.1:{repository.full_name}.git",
            "clone_url": f"{page}.git",
            "svn_url": page,
            "homepage": None,
            "mirror_url": None,
            "language": None,
            "license": None,
            "size": 1,
            **dict.fromkeys(("stargazers_count", "watchers_count", "watchers", "forks_count", "forks"), 0),
            **dict.fromkeys(("has_issues", "has_projects", "has_downloads", "has_wiki"), True),
            **dict.fromkeys(("has_pages", "has_discussions", "archived", "disabled", "is_template"), False),
            "open_issues_count": open_items,
            "open_issues": open_items,
            "default_branch": "main",
            "web_commit_signoff_required": False,
            "allow_forking": True,
            "topics": [],
            "visibility": "private",
            "custom_properties": {},
        }

    def label(self, repository: Repository, name: str) -> Json:
        number = repository.labels[name]
        return {
            "id": number,
            "node_id": f"LA_{number}",
            "url": f"{self._url}/repos/{repository.full_name}/labels/{name}",
            "name": name,
            "color": "ededed",
            "default": False,
            "description": "",
        }

    def labels(self, item: Item) -> list[Json]:
        return [self.label(item.repository, name) for name in item.labels]

    def pull_simple(self, item: Item) -> Json:
        repo = f"{self._url}/repos/{item.repository.full_name}"
        here, issue = f"{repo}/pulls/{item.number}", f"{repo}/issues/{item.number}"
        page = f"{self._url}/{item.repository.full_name}/pull/{item.number}"
        head = f"{item.id:040x}"
        links = {
            "self": here,
            "html": page,
            "issue": issue,
            "comments": f"{issue}/comments",
            "review_comments": f"{here}/comments",
            "review_comment": f"{repo}/pulls/comments{{/number}}",
            "commits": f"{here}/commits",
            "statuses": f"{repo}/statuses/{head}",
        }
        return {
            "url": here,
            "id": item.id,
            "node_id": f"PR_{item.id}",
            "html_url": page,
            "diff_url": f"{page}.diff",
            "patch_url": f"{page}.patch",
            "issue_url": issue,
            **{f"{name}_url": links[name] for name in links if name not in ("self", "html", "issue")},
            "number": item.number,
            "state": item.state,
            "locked": False,
            "title": item.title,
            "user": self.user(item.author),
            "body": item.body,
            "created_at": stamp(item.created_at),
            "updated_at": stamp(item.updated_at),
            "closed_at": stamp(item.closed_at) if item.closed_at else None,
            "merged_at": stamp(item.merged_at) if item.merged_at else None,
            **dict.fromkeys(("merge_commit_sha", "assignee", "milestone")),
            **dict.fromkeys(("auto_merge", "active_lock_reason")),
            "assignees": [],
            "requested_reviewers": [],
            "requested_teams": [],
            "labels": self.labels(item),
            "head": self._branch(item, f"change-{item.number}", head),
            "base": self._branch(item, "main", f"{item.repository.id:040x}"),
            "_links": {name: {"href": href} for name, href in links.items()},
            "author_association": "MEMBER",
            "draft": False,
        }

    def pull(self, item: Item) -> Json:
        merged = {"merged": True, "merged_by": self.user(item.merged_by)} if item.merged_by else {}
        return self.pull_simple(item) | PULL_ONLY | merged | {"comments": len(item.comments)}

    def issue(self, item: Item) -> Json:
        repo = f"{self._url}/repos/{item.repository.full_name}"
        here = f"{repo}/issues/{item.number}"
        page = f"{self._url}/{item.repository.full_name}/{'pull' if item.is_pull else 'issues'}/{item.number}"
        issue = {
            "url": here,
            "repository_url": repo,
            "labels_url": f"{here}/labels{{/name}}",
            "comments_url": f"{here}/comments",
            "events_url": f"{here}/events",
            "html_url": page,
            "id": item.id,
            "node_id": f"I_{item.id}",
            "number": item.number,
            "title": item.title,
            "user": self.user(item.author),
            "labels": self.labels(item),
            "state": item.state,
            "state_reason": item.state_reason,
            "closed_at": stamp(item.closed_at) if item.closed_at else None,
            "locked": False,
            **dict.fromkeys(("assignee", "milestone", "active_lock_reason")),
            "assignees": [],
            "comments": len(item.comments),
            "created_at": stamp(item.created_at),
            "updated_at": stamp(item.updated_at),
            "author_association": "NONE" if item.author.type == "Bot" else "MEMBER",
            "body": item.body,
            "reactions": {"url": f"{here}/reactions", "total_count": 0} | dict.fromkeys(REACTIONS, 0),
            "performed_via_github_app": self._app_of(item),
        }
        if item.is_pull:
            merged = stamp(item.merged_at) if item.merged_at else None
            pull = {"url": f"{repo}/pulls/{item.number}", "html_url": page, "merged_at": merged}
            issue["pull_request"] = pull | {"diff_url": f"{page}.diff", "patch_url": f"{page}.patch"}
        return issue

    def comment(self, comment: Comment) -> Json:
        item = comment.item
        repo = f"{self._url}/repos/{item.repository.full_name}"
        page = f"{self._url}/{item.repository.full_name}/{'pull' if item.is_pull else 'issues'}/{item.number}"
        return {
            "url": f"{repo}/issues/comments/{comment.id}",
            "html_url": f"{page}#issuecomment-{comment.id}",
            "issue_url": f"{repo}/issues/{item.number}",
            "id": comment.id,
            "node_id": f"IC_{comment.id}",
            "user": self.user(comment.author),
            "created_at": stamp(comment.created_at),
            "updated_at": stamp(comment.created_at),
            "author_association": "NONE" if comment.author.type == "Bot" else "MEMBER",
            "body": comment.body,
            "performed_via_github_app": self._app_of(comment),
        }

    def installation(self, installation: Installation) -> Json:
        by = installation.suspended_by
        return {
            "id": installation.id,
            "account": self.user(installation.account),
            "repository_selection": "selected",
            "access_tokens_url": f"{self._url}/app/installations/{installation.id}/access_tokens",
            "repositories_url": f"{self._url}/installation/repositories",
            "html_url": f"{self._url}/settings/installations/{installation.id}",
            "app_id": self._github["app_id"],
            "app_slug": self._github["app_slug"],
            "target_id": installation.account.id,
            "target_type": installation.account.type,
            "permissions": installation.permissions,
            "events": ["pull_request"],
            "created_at": stamp(installation.created_at),
            "updated_at": stamp(installation.updated_at),
            "single_file_name": None,
            "has_multiple_single_files": False,
            "single_file_paths": [],
            "suspended_by": self.user(by) if by else None,
            "suspended_at": stamp(installation.suspended_at) if installation.suspended_at else None,
        }

    def integration(self, since: datetime) -> Json:
        return {
            "id": self._github["app_id"],
            "slug": self._github["app_slug"],
            "node_id": f"A_{self._github['app_id']}",
            "client_id": self._github["client_id"],
            "owner": self.user(Actor(login="aswhom", id=1, type="Organization")),
            "name": self._github["app_slug"],
            "description": None,
            "external_url": self._url,
            "html_url": f"{self._url}/apps/{self._github['app_slug']}",
            "created_at": stamp(since),
            "updated_at": stamp(since),
            "permissions": self._github["installations"][0]["permissions"],
            "events": ["pull_request"],
        }

    def _app_of(self, made: Item | Comment) -> Json | None:
        if not made.via_app:
            return None
        app = self.integration(made.created_at)
        del app["client_id"]  # the webhook schemas forbid it
        return app

    def _branch(self, item: Item, ref: str, sha: str) -> Json:
        owner = item.repository.owner
        return {
            "label": f"{owner.login}:{ref}",
            "ref": ref,
            "sha": sha,
            "user": self.user(owner),
            "repo": self.repository(item.repository)
            | {
                "allow_squash_merge": True,
                "allow_merge_commit": True,
                "allow_rebase_merge": True,
                "allow_auto_merge": False,
                "allow_update_branch": False,
                "delete_branch_on_merge": False,
            },
        }


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
