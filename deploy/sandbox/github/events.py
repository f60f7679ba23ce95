"""The payloads of events about issues and pull requests."""

from typing import Any

from deploy.sandbox.github.actor_shapes import ActorShapes
from deploy.sandbox.github.deliveries import Deliveries, Delivery
from deploy.sandbox.github.item_shapes import ItemShapes
from deploy.sandbox.github.model import Actor, Comment, Item, Repository
from deploy.sandbox.github.store import Store


class Events:
    def __init__(self, store: Store, actors: ActorShapes, shapes: ItemShapes, deliveries: Deliveries) -> None:
        self._store = store
        self._actors = actors
        self._shapes = shapes
        self._deliveries = deliveries

    def of_item(self, action: str, item: Item, sender: Actor, **extra: Any) -> Delivery:
        """Create the event of an issue or pull request without sending it."""
        if item.is_pull:
            about = {"number": item.number, "pull_request": self._shapes.pull(item)}
            return self._make("pull_request", action, item, sender, about | extra)
        return self._make("issues", action, item, sender, {"issue": self._shapes.issue(item)} | extra)

    def of_comment(self, comment: Comment) -> Delivery:
        """Create the event of a new comment without sending it."""
        about = {"issue": self._shapes.issue(comment.item), "comment": self._shapes.comment(comment)}
        return self._make("issue_comment", "created", comment.item, comment.author, about)

    def _make(self, event: str, action: str, item: Item, sender: Actor, about: dict[str, Any]) -> Delivery:
        payload = {
            "action": action,
            **about,
            "repository": self._shapes.repository(item.repository),
            "organization": _organization(self._actors, item.repository),
            "sender": self._actors.user(sender),
        }
        installation = self._store.installation_of(item.repository.full_name)
        if installation:
            payload["installation"] = {"id": installation.id, "node_id": f"INST_{installation.id}"}
        return self._deliveries.make(event, payload)


def _organization(actors: ActorShapes, repository: Repository) -> dict[str, Any]:
    account = actors.user(repository.owner)
    here = account["url"].replace("/users/", "/orgs/")
    kept = {name: account[name] for name in ("login", "id", "node_id", "avatar_url")}
    paths = {"hooks_url": "/hooks", "issues_url": "/issues", "members_url": "/members{/member}"}
    paths |= {"repos_url": "/repos", "events_url": "/events", "public_members_url": "/public_members{/member}"}
    return kept | {"url": here, "description": None} | {name: here + path for name, path in paths.items()}
