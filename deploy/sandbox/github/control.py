"""What a test or the demo may do here: open pull requests, label them, and play the owner of an installation."""

from collections.abc import Iterable
from typing import Any

from flask import Blueprint, Response, jsonify

from deploy.sandbox.github.deliveries import Deliveries, Delivery
from deploy.sandbox.github.installing import changed
from deploy.sandbox.github.model import Item, Repository
from deploy.sandbox.github.shapes import Shapes
from deploy.sandbox.github.store import Store
from deploy.sandbox.introspection import Introspection
from deploy.sandbox.surface import BadControl, json_body


def control(store: Store, shapes: Shapes, deliveries: Deliveries, introspection: Introspection) -> Blueprint:
    routes = Blueprint("control", __name__)

    def sent(made: Iterable[Delivery], *, hold: bool, **answer: Any) -> Response:
        made = list(made)
        statuses = [] if hold else [deliveries.send(delivery) for delivery in made]
        return jsonify(deliveries=[delivery.guid for delivery in made], statuses=statuses, **answer)

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
        return sent([made], hold=body.get("hold", False), number=item.number)

    @routes.post("/_sandbox/pulls/<owner>/<repo>/<int:number>/labels")
    def label_pull(owner: str, repo: str, number: int) -> Response:
        """One `labeled` delivery a label; `sender` is who put them there, the author unless named."""
        body = json_body("labels")
        with store.lock:
            item = pull_of(owner, repo, number)
            made = []
            for name in body["labels"]:
                store.label(item, [name])
                label = shapes.label(item.repository, name)
                made.append(pull_event("labeled", item, body.get("sender", item.author.login), label=label))
        return sent(made, hold=body.get("hold", False), number=number)

    @routes.post("/_sandbox/pulls/<owner>/<repo>/<int:number>/merge")
    def merge_pull(owner: str, repo: str, number: int) -> Response:
        """`by` merges it: `closed`, with `merged` true."""
        body = json_body("by")
        with store.lock:
            item = pull_of(owner, repo, number)
            item.merged_by, item.merged_at = store.user(str(body["by"])), store.now()
            made = pull_event("closed", item, str(body["by"]))
        return sent([made], hold=body.get("hold", False), number=number)

    @routes.post("/_sandbox/pulls/<owner>/<repo>/<int:number>/review_requests")
    def request_review(owner: str, repo: str, number: int) -> Response:
        """`review_requested` of `reviewer`, by `sender` or else the author."""
        body = json_body("reviewer")
        with store.lock:
            item = pull_of(owner, repo, number)
            reviewer = shapes.user(store.user(str(body["reviewer"])))
            sender = body.get("sender", item.author.login)
            made = pull_event("review_requested", item, sender, requested_reviewer=reviewer)
        return sent([made], hold=body.get("hold", False), number=number)

    @routes.post("/_sandbox/pulls/<owner>/<repo>/<int:number>/comments")
    def comment_pull(owner: str, repo: str, number: int) -> Response:
        """`author` comments: `issue_comment` `created`."""
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
        return sent([made], hold=body.get("hold", False), number=number)

    @routes.get("/_sandbox/deliveries/<reference>")
    def read_delivery(reference: str) -> Response:
        """A delivery with its payload, sent or held."""
        delivery = deliveries.find(reference)
        if delivery is None:
            raise BadControl(f"there is no delivery {reference}")
        return jsonify(delivery.whole())

    @routes.post("/_sandbox/deliver")
    def deliver() -> Response:
        reference = json_body("delivery")["delivery"]
        delivery = deliveries.find(str(reference))
        if delivery is None:
            raise BadControl(f"there is no delivery {reference}")
        return jsonify(delivery=delivery.guid, status=deliveries.send(delivery))

    @routes.get("/_sandbox/deliveries")
    def list_deliveries() -> Response:
        return jsonify([delivery.row() | {"statuses": delivery.statuses} for delivery in deliveries.all()])

    @routes.post("/_sandbox/authorizations/revoke")
    def revoke_authorization() -> Response:
        """The user withdraws the authorization in her settings; GitHub says so with an action and a sender.

        `signal_only` leaves her grants alone: the echo of a request of our own, or a replay.
        """
        body = json_body("user")
        user = store.users.get(body["user"])
        if user is None:
            raise BadControl(f"there is no user {body['user']}")
        ended = 0 if body.get("signal_only") else introspection.revoke("github", user=user.login)["revoked"]
        made = deliveries.make("github_app_authorization", {"action": "revoked", "sender": shapes.user(user)})
        return sent([made], hold=body.get("hold", False), revoked=ended)

    @routes.post("/_sandbox/installations/<int:number>/<action>")
    def change_installation(number: int, action: str) -> Response:
        """What its owner does to an installation, with its webhook; `expire_tokens` without one."""
        body = json_body()
        with store.lock:
            installation = store.installations.get(number)
            if installation is None or installation.deleted is not (action == "reinstall"):
                raise BadControl(f"there is no installation {number} that could {action}")
            if action == "expire_tokens":
                for held in store.tokens_of(installation):
                    held.expires_at = min(held.expires_at, store.now())
                return jsonify(ok=True)
            event, payload = changed(store, shapes, installation, action, body)
            made = deliveries.make(event, payload)
        return sent([made], hold=body.get("hold", False), installation=payload["installation"]["id"])

    return routes


def _organization(shapes: Shapes, repository: Repository) -> dict[str, Any]:
    account = shapes.user(repository.owner)
    here = account["url"].replace("/users/", "/orgs/")
    kept = {name: account[name] for name in ("login", "id", "node_id", "avatar_url")}
    paths = {"hooks_url": "/hooks", "issues_url": "/issues", "members_url": "/members{/member}"}
    paths |= {"repos_url": "/repos", "events_url": "/events", "public_members_url": "/public_members{/member}"}
    return kept | {"url": here, "description": None} | {name: here + path for name, path in paths.items()}
