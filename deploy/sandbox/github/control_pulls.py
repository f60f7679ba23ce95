"""Control endpoints about pull requests: opened, labelled, merged, commented, each with its webhook."""

from typing import Any

from flask import Blueprint, Response, jsonify

from deploy.sandbox.github.deliveries import Deliveries, Delivery
from deploy.sandbox.github.model import Item, Repository
from deploy.sandbox.github.shapes import Shapes
from deploy.sandbox.github.store import Store
from deploy.sandbox.surface import BadControl, json_body


def pull_orders(routes: Blueprint, store: Store, shapes: Shapes, deliveries: Deliveries) -> None:
    """Add the endpoints to *routes*."""

    def pull_event(action: str, item: Item, sender: str, **extra: Any) -> Delivery:
        installation = store.installation_of(item.repository.full_name)
        payload = {
            "action": action,
            "number": item.number,
            "pull_request": shapes.pull(item),
            **extra,
            "repository": shapes.repository(item.repository),
            "organization": _organization(shapes, item.repository),
            "sender": shapes.user(store.user(sender)),
        }
        if installation:
            payload["installation"] = {"id": installation.id, "node_id": f"INST_{installation.id}"}
        return deliveries.make("pull_request", payload)

    def pull_of(owner: str, repo: str, number: int) -> Item:
        repository = store.repositories.get(f"{owner}/{repo}")
        item = repository.items.get(number) if repository else None
        if item is None or not item.is_pull:
            raise BadControl(f"there is no pull request {owner}/{repo}#{number}")
        return item

    @routes.post("/_sandbox/pulls")
    def open_pull() -> Response:
        body = json_body("repo", "author")
        author, repository = str(body["author"]), store.repositories.get(body["repo"])
        if repository is None:
            raise BadControl(f"there is no repository {body['repo']}")
        with store.lock:
            item = store.open_item(
                repository,
                author=store.user(author),
                via_app=False,
                title=body.get("title", "A change"),
                body=body.get("body"),
                labels=body.get("labels", []),
                is_pull=True,
            )
            made = pull_event("opened", item, author)
        return jsonify(**deliveries.give([made], hold=body.get("hold", False)), number=item.number)

    @routes.post("/_sandbox/pulls/<owner>/<repo>/<int:number>/labels")
    def label_pull(owner: str, repo: str, number: int) -> Response:
        """Send one `labeled` delivery per label. `sender` added the labels, by default the author."""
        body = json_body("labels")
        with store.lock:
            item = pull_of(owner, repo, number)
            made = []
            for name in body["labels"]:
                store.label(item, [name])
                label = shapes.label(item.repository, name)
                made.append(pull_event("labeled", item, body.get("sender", item.author.login), label=label))
        return jsonify(**deliveries.give(made, hold=body.get("hold", False)), number=number)

    @routes.post("/_sandbox/pulls/<owner>/<repo>/<int:number>/merge")
    def merge_pull(owner: str, repo: str, number: int) -> Response:
        """Merge as `by`: sends `closed` with `merged` true."""
        body = json_body("by")
        with store.lock:
            item = pull_of(owner, repo, number)
            item.merged_by, item.merged_at = store.user(str(body["by"])), store.now()
            made = pull_event("closed", item, str(body["by"]))
        return jsonify(**deliveries.give([made], hold=body.get("hold", False)), number=number)

    @routes.post("/_sandbox/pulls/<owner>/<repo>/<int:number>/review_requests")
    def request_review(owner: str, repo: str, number: int) -> Response:
        """Send `review_requested` for `reviewer` or the named `team`, by `sender` or the author."""
        body = json_body()
        with store.lock:
            item = pull_of(owner, repo, number)
            if "team" in body:
                whose = {"requested_team": shapes.team(str(body["team"]))}
            else:
                whose = {"requested_reviewer": shapes.user(store.user(str(body.get("reviewer"))))}
            sender = body.get("sender", item.author.login)
            made = pull_event("review_requested", item, sender, **whose)
        return jsonify(**deliveries.give([made], hold=body.get("hold", False)), number=number)

    @routes.post("/_sandbox/pulls/<owner>/<repo>/<int:number>/comments")
    def comment_pull(owner: str, repo: str, number: int) -> Response:
        """Comment as `author`: sends `issue_comment` `created`."""
        body = json_body("author", "body")
        with store.lock:
            item = pull_of(owner, repo, number)
            comment = store.comment(item, author=store.user(str(body["author"])), via_app=False, body=body["body"])
            payload = {
                "action": "created",
                "issue": shapes.issue(item),
                "comment": shapes.comment(comment),
                "repository": shapes.repository(item.repository),
                "organization": _organization(shapes, item.repository),
                "sender": shapes.user(comment.author),
            }
            installation = store.installation_of(item.repository.full_name)
            if installation:
                payload["installation"] = {"id": installation.id, "node_id": f"INST_{installation.id}"}
            made = deliveries.make("issue_comment", payload)
        return jsonify(**deliveries.give([made], hold=body.get("hold", False)), number=number)


def _organization(shapes: Shapes, repository: Repository) -> dict[str, Any]:
    account = shapes.user(repository.owner)
    here = account["url"].replace("/users/", "/orgs/")
    kept = {name: account[name] for name in ("login", "id", "node_id", "avatar_url")}
    paths = {"hooks_url": "/hooks", "issues_url": "/issues", "members_url": "/members{/member}"}
    paths |= {"repos_url": "/repos", "events_url": "/events", "public_members_url": "/public_members{/member}"}
    return kept | {"url": here, "description": None} | {name: here + path for name, path in paths.items()}
