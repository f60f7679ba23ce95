"""Control endpoints about pull requests: opened, labelled, merged, commented, each with its webhook."""

from typing import Any

from flask import Blueprint, Response, jsonify

from deploy.sandbox.github.actor_shapes import ActorShapes
from deploy.sandbox.github.deliveries import Deliveries
from deploy.sandbox.github.events import Events
from deploy.sandbox.github.item_shapes import ItemShapes
from deploy.sandbox.github.model import Actor, Item
from deploy.sandbox.github.store import Store
from deploy.sandbox.surface import BadControl, json_body


def pull_orders(
    routes: Blueprint, store: Store, actors: ActorShapes, shapes: ItemShapes, events: Events, deliveries: Deliveries
) -> None:
    """Add the endpoints to *routes*."""

    def pull_of(owner: str, repo: str, number: int) -> Item:
        repository = store.repositories.get(f"{owner}/{repo}")
        item = repository.items.get(number) if repository else None
        if item is None or not item.is_pull:
            raise BadControl(f"there is no pull request {owner}/{repo}#{number}")
        return item

    def sender_of(body: dict[str, Any], item: Item) -> Actor:
        return store.user(str(body.get("sender", item.author.login)))

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
            made = events.of_item("opened", item, item.author)
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
                made.append(events.of_item("labeled", item, sender_of(body, item), label=label))
        return jsonify(**deliveries.give(made, hold=body.get("hold", False)), number=number)

    @routes.post("/_sandbox/pulls/<owner>/<repo>/<int:number>/merge")
    def merge_pull(owner: str, repo: str, number: int) -> Response:
        """Merge as `by`: sends `closed` with `merged` true."""
        body = json_body("by")
        with store.lock:
            item = pull_of(owner, repo, number)
            item.merged_by = store.user(str(body["by"]))
            item.merged_at = item.closed_at = store.now()
            made = events.of_item("closed", item, item.merged_by)
        return jsonify(**deliveries.give([made], hold=body.get("hold", False)), number=number)

    @routes.post("/_sandbox/pulls/<owner>/<repo>/<int:number>/review_requests")
    def request_review(owner: str, repo: str, number: int) -> Response:
        """Send `review_requested` for `reviewer` or the named `team`, by `sender` or the author."""
        body = json_body()
        with store.lock:
            item = pull_of(owner, repo, number)
            if "team" in body:
                whose = {"requested_team": actors.team(str(body["team"]))}
            else:
                whose = {"requested_reviewer": actors.user(store.user(str(body.get("reviewer"))))}
            made = events.of_item("review_requested", item, sender_of(body, item), **whose)
        return jsonify(**deliveries.give([made], hold=body.get("hold", False)), number=number)

    @routes.post("/_sandbox/pulls/<owner>/<repo>/<int:number>/comments")
    def comment_pull(owner: str, repo: str, number: int) -> Response:
        """Comment as `author`: sends `issue_comment` `created`."""
        body = json_body("author", "body")
        with store.lock:
            item = pull_of(owner, repo, number)
            comment = store.comment(item, author=store.user(str(body["author"])), via_app=False, body=body["body"])
            made = events.of_comment(comment)
        return jsonify(**deliveries.give([made], hold=body.get("hold", False)), number=number)
