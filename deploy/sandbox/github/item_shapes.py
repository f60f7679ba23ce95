"""GitHub's JSON of repositories, pull requests, issues, labels and comments.

REST and webhooks share these shapes and those of actors and apps. The webhook schemas forbid unknown fields, so a field
is here only if both allow it.
"""

from deploy.sandbox.github.actor_shapes import ActorShapes, Json
from deploy.sandbox.github.app_shapes import AppShapes
from deploy.sandbox.github.model import Actor, Comment, Item, Repository
from deploy.sandbox.github.times import stamp
from deploy.sandbox.github.urls import REPOSITORY_URLS

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


class ItemShapes:
    """Shapes of repositories and of what people write in them, below the API's URL."""

    def __init__(self, url: str, actors: ActorShapes, apps: AppShapes) -> None:
        self._url = url
        self._actors = actors
        self._apps = apps

    def repository(self, repository: Repository) -> Json:
        here, page = f"{self._url}/repos/{repository.full_name}", f"{self._url}/{repository.full_name}"
        open_items = len(repository.items)
        return {
            "id": repository.id,
            "node_id": f"R_{repository.id}",
            "name": repository.name,
            "full_name": repository.full_name,
            "private": True,
            "owner": self._actors.user(repository.owner),
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
        page = self._page(item)
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
            "user": self._actors.user(item.author),
            "body": item.body,
            "created_at": stamp(item.created_at),
            "updated_at": stamp(item.updated_at),
            "closed_at": stamp(item.closed_at) if item.closed_at else None,
            "merged_at": stamp(item.merged_at) if item.merged_at else None,
            **dict.fromkeys(("merge_commit_sha", "assignee", "milestone", "auto_merge", "active_lock_reason")),
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
        merged = {"merged": True, "merged_by": self._actors.user(item.merged_by)} if item.merged_by else {}
        return self.pull_simple(item) | PULL_ONLY | merged | {"comments": len(item.comments)}

    def issue(self, item: Item) -> Json:
        repo = f"{self._url}/repos/{item.repository.full_name}"
        here = f"{repo}/issues/{item.number}"
        page = self._page(item)
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
            "user": self._actors.user(item.author),
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
            "author_association": _association(item.author),
            "body": item.body,
            "reactions": {"url": f"{here}/reactions", "total_count": 0} | dict.fromkeys(REACTIONS, 0),
            "performed_via_github_app": self._apps.via(item),
        }
        if item.is_pull:
            merged = stamp(item.merged_at) if item.merged_at else None
            pull = {"url": f"{repo}/pulls/{item.number}", "html_url": page, "merged_at": merged}
            issue["pull_request"] = pull | {"diff_url": f"{page}.diff", "patch_url": f"{page}.patch"}
        return issue

    def comment(self, comment: Comment) -> Json:
        item = comment.item
        repo = f"{self._url}/repos/{item.repository.full_name}"
        page = self._page(item)
        return {
            "url": f"{repo}/issues/comments/{comment.id}",
            "html_url": f"{page}#issuecomment-{comment.id}",
            "issue_url": f"{repo}/issues/{item.number}",
            "id": comment.id,
            "node_id": f"IC_{comment.id}",
            "user": self._actors.user(comment.author),
            "created_at": stamp(comment.created_at),
            "updated_at": stamp(comment.created_at),
            "author_association": _association(comment.author),
            "body": comment.body,
            "performed_via_github_app": self._apps.via(comment),
        }

    def _page(self, item: Item) -> str:
        return f"{self._url}/{item.repository.full_name}/{'pull' if item.is_pull else 'issues'}/{item.number}"

    def _branch(self, item: Item, ref: str, sha: str) -> Json:
        owner = item.repository.owner
        return {
            "label": f"{owner.login}:{ref}",
            "ref": ref,
            "sha": sha,
            "user": self._actors.user(owner),
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


def _association(author: Actor) -> str:
    return "NONE" if author.type == "Bot" else "MEMBER"
