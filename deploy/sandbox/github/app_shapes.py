"""GitHub's JSON of the app and its installations."""

from datetime import datetime

from deploy.sandbox.github.actor_shapes import ActorShapes, Json
from deploy.sandbox.github.model import Actor, Comment, Installation, Item
from deploy.sandbox.github.times import stamp


class AppShapes:
    """Shapes that depend on the app's identity."""

    def __init__(self, github: Json, actors: ActorShapes) -> None:
        self._url: str = github["url"]
        self._github = github
        self._actors = actors

    def installation(self, installation: Installation) -> Json:
        by = installation.suspended_by
        return {
            "id": installation.id,
            "account": self._actors.user(installation.account),
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
            "suspended_by": self._actors.user(by) if by else None,
            "suspended_at": stamp(installation.suspended_at) if installation.suspended_at else None,
        }

    def integration(self, since: datetime) -> Json:
        return {
            "id": self._github["app_id"],
            "slug": self._github["app_slug"],
            "node_id": f"A_{self._github['app_id']}",
            "client_id": self._github["client_id"],
            "owner": self._actors.user(Actor(login="aswhom", id=1, type="Organization")),
            "name": self._github["app_slug"],
            "description": None,
            "external_url": self._url,
            "html_url": f"{self._url}/apps/{self._github['app_slug']}",
            "created_at": stamp(since),
            "updated_at": stamp(since),
            "permissions": self._github["installations"][0]["permissions"],
            "events": ["pull_request"],
        }

    def via(self, made: Item | Comment) -> Json | None:
        """Return the app through which an issue or a comment was made, if any."""
        if not made.via_app:
            return None
        app = self.integration(made.created_at)
        del app["client_id"]  # the webhook schemas forbid it
        return app
