"""GitHub's JSON of users and teams."""

from datetime import datetime
from typing import Any

from deploy.sandbox.github.model import Actor
from deploy.sandbox.github.times import stamp
from deploy.sandbox.github.urls import USER_URLS

Json = dict[str, Any]


class ActorShapes:
    """Shapes of the parties that act, below the API's URL."""

    def __init__(self, url: str) -> None:
        self._url = url

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
