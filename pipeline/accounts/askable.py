"""Limits on the scopes a key may request of people, since its model may be manipulated."""

from __future__ import annotations

from sqlalchemy import Connection

from identity.agents.api_keys import Caller, Role
from identity.errors import PolicyDenied
from identity.model import AccountKey, ProviderConnection
from identity.providers import PROFILES, profile_of
from pipeline.accounts.abilities import scopes_to_ask
from pipeline.accounts.scope_report import switched_on
from pipeline.authoring.registry import Registry
from pipeline.authoring.uses import USER


def check_askable(
    connection: Connection,
    workflows: Registry,
    caller: Caller,
    key: AccountKey,
    owner: ProviderConnection,
    scopes: tuple[str, ...],
) -> None:
    """Raise PolicyDenied for a scope that no action of *caller*, or of the tenant's workflows, needs.

    Scopes a link requests by default are allowed: an operator listed them, or a job waits for them. Admins of a tenant
    may ask for more.
    """
    if caller.role is Role.ADMIN:
        return
    actions = [
        *switched_on(connection, workflows, caller.tenant, USER),
        *(action for name, action in workflows.tools.items() if caller.may_execute(name)),
    ]
    needed = {scope for action in actions if action.facts.provider == owner.provider for scope in action.facts.scopes}
    askable = profile_of(PROFILES, owner.provider).covered({*needed, *scopes_to_ask(connection, key, owner)})
    if beyond := [scope for scope in scopes if scope not in askable]:
        raise PolicyDenied(
            f"no workflow of the tenant's, and no tool of this key, needs {', '.join(beyond)} at {owner.id}: leave "
            "scopes out, or ask with a key of role admin"
        )
