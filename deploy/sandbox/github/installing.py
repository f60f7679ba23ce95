"""Changes that an account's owner makes to the app's installation, and their webhooks."""

from typing import Any

from deploy.sandbox.github.actor_shapes import ActorShapes
from deploy.sandbox.github.app_shapes import AppShapes
from deploy.sandbox.github.model import Installation
from deploy.sandbox.github.store import Store
from deploy.sandbox.surface import BadControl


def changed(
    store: Store, actors: ActorShapes, apps: AppShapes, installation: Installation, action: str, order: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Apply the change, and return the event's name and payload. Raise BadControl."""
    account = installation.account
    owner = store.user(next((login for login, of in store.account_of.items() if of == account.login), account.login))
    installation.updated_at = store.now()
    event, extra = "installation", dict[str, Any]()
    match action:
        case "suspend":
            installation.suspended_at, installation.suspended_by = store.now(), owner
        case "unsuspend":
            installation.suspended_at = installation.suspended_by = None
        case "delete":
            action, installation.deleted = "deleted", True
        case "reinstall":
            action, installation = "created", store.reinstall(installation)
            extra["repositories"] = _briefly(store, installation.repositories)
        case "permissions":
            action = "new_permissions_accepted"
            installation.permissions = dict(order.get("permissions") or {})
        case "remove_repositories":
            event, action = "installation_repositories", "removed"
            extra = _removed(store, installation, order.get("repositories") or [])
        case _:
            raise BadControl(f"an installation can't {action}")
    payload = {
        "action": action,
        "installation": apps.installation(installation),
        **extra,
        "sender": actors.user(owner),
    }
    return event, payload


def _removed(store: Store, installation: Installation, names: list[str]) -> dict[str, Any]:
    if not names or not set(names) <= set(installation.repositories):
        raise BadControl(f"installation {installation.id} has no such repositories")
    installation.repositories = [name for name in installation.repositories if name not in names]
    return {
        "repository_selection": "selected",
        "repositories_added": [],
        "repositories_removed": _briefly(store, names),
        "requester": None,
    }


def _briefly(store: Store, names: list[str]) -> list[dict[str, Any]]:
    found = (store.repositories[name] for name in names)
    return [
        {"id": row.id, "node_id": f"R_{row.id}", "name": row.name, "full_name": row.full_name, "private": True}
        for row in found
    ]
