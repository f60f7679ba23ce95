"""What the holder of a key may have people asked for: a model that is talked into it must not ask for more."""

from __future__ import annotations

from sqlalchemy import Connection

from identity.agents.api_keys import Caller, Role
from identity.errors import PolicyDenied
from identity.model import AccountKey, ProviderConnection
from identity.providers import PROFILES, profile_of
from pipeline.accounts.abilities import scopes_to_ask
from pipeline.accounts.scope_report import switched_on
from pipeline.authoring.uses import USER
from pipeline.workflow import Registry


def check_askable(
    connection: Connection,
    workflows: Registry,
    caller: Caller,
    key: AccountKey,
    owner: ProviderConnection,
    scopes: tuple[str, ...],
) -> None:
    """Raises PolicyDenied for a scope that nothing needs of what *caller*, or the tenant's workflows, do as people.

    What a link asks for by itself an operator has said, or a job waits for. Admins of a tenant may ask for more.
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
