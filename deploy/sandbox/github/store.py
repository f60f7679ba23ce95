"""GitHub's state, in memory. `lock` is held around every read and write."""

import itertools
import secrets
import threading
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from deploy.sandbox.fingerprint import fingerprint
from deploy.sandbox.github.model import Actor, Comment, Installation, InstallationToken, Item, Repository
from deploy.sandbox.journal import Clock

BOT_ID = 41898282


class Store:
    def __init__(self, github: dict[str, Any], *, clock: Clock) -> None:
        self.lock = threading.RLock()
        self.now = clock
        self.holds_echoes = False  # holds events of authorizations that the client itself ended
        self._ids = itertools.count(5_000_001)
        self.bot = Actor(login=f"{github['app_slug']}[bot]", id=BOT_ID, type="Bot")
        self.users = {row["login"]: Actor(login=row["login"], id=row["id"]) for row in github["users"]}
        self.account_of = {row["login"]: row["account"] for row in github["users"]}
        self.installations = {row["id"]: _installation(row, self._moment()) for row in github["installations"]}
        self.repositories: dict[str, Repository] = {}
        for installation in self.installations.values():
            for full_name in installation.repositories:
                self.repositories[full_name] = Repository(
                    id=next(self._ids), full_name=full_name, owner=installation.account, created_at=self._moment()
                )
        self._tokens: dict[str, InstallationToken] = {}
        self._token_life = timedelta(seconds=github.get("installation_seconds", 3600))

    def user(self, login: str) -> Actor:
        """Return the user with this login. One unknown to the world is added as a stranger without an account."""
        if login not in self.users:
            self.users[login] = Actor(login=login, id=next(self._ids))
        return self.users[login]

    def installation_of(self, full_name: str) -> Installation | None:
        live = (row for row in self.installations.values() if not row.deleted)
        return next((row for row in live if full_name in row.repositories), None)

    def reinstall(self, former: Installation) -> Installation:
        """Install a deleted app again, as a new installation with a new id."""
        now = self._moment()
        made = Installation(
            id=max(self.installations) + 1,
            account=former.account,
            repositories=list(former.repositories),
            permissions=dict(former.permissions),
            created_at=now,
            updated_at=now,
        )
        self.installations[made.id] = made
        return made

    def mint(
        self, installation: Installation, repositories: Iterable[str], permissions: dict[str, str]
    ) -> tuple[str, InstallationToken]:
        token = "ghs_" + secrets.token_hex(18)
        held = InstallationToken(
            installation=installation,
            repositories=frozenset(repositories),
            permissions=permissions,
            expires_at=self._moment() + self._token_life,
        )
        self._tokens[fingerprint(token)] = held
        return token, held

    def token(self, token: str) -> InstallationToken | None:
        """Return the installation token, dead or alive."""
        return self._tokens.get(fingerprint(token))

    def tokens_of(self, installation: Installation) -> list[InstallationToken]:
        return [held for held in self._tokens.values() if held.installation is installation]

    def open_item(
        self,
        repository: Repository,
        *,
        author: Actor,
        via_app: bool,
        title: str,
        body: str | None,
        labels: Iterable[str],
        is_pull: bool,
    ) -> Item:
        number = len(repository.items) + 1
        item = Item(
            id=next(self._ids),
            number=number,
            repository=repository,
            title=title,
            body=body,
            author=author,
            via_app=via_app,
            created_at=self._moment(),
            updated_at=self._moment(),
            is_pull=is_pull,
        )
        repository.items[number] = item
        self.label(item, labels)
        return item

    def label(self, item: Item, names: Iterable[str]) -> list[str]:
        """Add labels to an item, creating them in its repository if needed. Return those that were new to the item."""
        added = [name for name in dict.fromkeys(names) if name not in item.labels]
        for name in added:
            item.repository.labels.setdefault(name, next(self._ids))
            item.labels.append(name)
        item.updated_at = self._moment()
        return added

    def update(self, item: Item, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Set those of title, body and state that are given. Return the former values of those that changed."""
        now = self._moment()
        before = {
            name: getattr(item, name)
            for name in ("title", "body", "state")
            if name in wanted and getattr(item, name) != wanted[name]
        }
        item.title, item.body = wanted.get("title", item.title), wanted.get("body", item.body)
        if "state" in before:  # GitHub ignores a reason without a change of state
            item.closed_at = now if wanted["state"] == "closed" else None
            item.state_reason = wanted.get("state_reason") or ("completed" if item.closed_at else "reopened")
        if before:
            item.updated_at = now
        return before

    def comment(self, item: Item, *, author: Actor, via_app: bool, body: str) -> Comment:
        comment = Comment(
            id=next(self._ids), item=item, body=body, author=author, via_app=via_app, created_at=self._moment()
        )
        item.comments.append(comment)
        item.updated_at = comment.created_at
        return comment

    def _moment(self) -> datetime:
        return self.now().replace(microsecond=0)


def _installation(row: dict[str, Any], now: datetime) -> Installation:
    return Installation(
        id=row["id"],
        account=Actor(login=row["account"], id=row.get("account_id", row["id"]), type="Organization"),
        repositories=list(row["repositories"]),
        permissions=dict(row["permissions"]),
        created_at=now,
        updated_at=now,
    )
