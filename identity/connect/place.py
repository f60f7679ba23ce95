"""In which workspace somebody consented: it must be one that was listed for the tenant.

The consent pages of Slack and Linear let one choose a workspace, and many people are in several. A token of another
company's would act there, and its user's id is one that the tenant's own workspace never sends.
"""

from __future__ import annotations

from sqlalchemy import Connection

from identity.connect.arrival import Arrival
from identity.connect.reasons import AGAIN, OPERATOR, Why, refuse
from identity.connections.installations import ANYWHERE, has_listing, listed_as, note_places, takes_any
from identity.model import ProviderConnection
from identity.providers.profile import ExternalIdentity


def check_place(connection: Connection, arrival: Arrival, external: ExternalIdentity | None) -> None:
    """Refuse a workspace that is not the tenant's. Nothing listed there, anybody's or its own, and nothing is known.

    Where it is taken is kept: an end there that reaches nobody is no stranger's.

    Inside the transaction that stores the consent. Raises Refusal.
    """
    places = frozenset() if external is None else external.places
    owner, tenant = arrival.owner, arrival.session.key.tenant
    if not places:  # a provider without workspaces, or one that does not say: then it may be anywhere
        note_places(connection, owner.id, (ANYWHERE,))
        return
    whose = set(listed_as(connection, owner.id, places).values())
    if whose == {tenant} or not (whose or _says_which(connection, owner, tenant)):
        note_places(connection, owner.id, places)
        return
    name, named = arrival.provider, ", ".join(sorted(places))
    if tenant in whose:  # a workspace of one, in an organization of the other: what comes from there has one tenant
        refuse(
            Why.OPERATOR,
            f"your workspace at {name} ({named}) is listed for your company here and for another one as well",
            OPERATOR,
            final=True,
            places=named,
            next="aswhom installations list",
        )
    refuse(
        Why.WRONG_ACCOUNT,
        f"you gave access in a workspace at {name} ({named}) that is not listed as your company's here",
        f"choose your company's workspace on {name}'s page: {AGAIN}; if you did, {OPERATOR}",
        final=True,
        places=named,
    )


def _says_which(connection: Connection, owner: ProviderConnection, tenant: str) -> bool:
    """Whether what is listed says which workspaces are the tenant's: of its own connection, also that none is left."""
    if owner.tenant is not None:
        return not takes_any(connection, owner.id)
    return has_listing(connection, owner.id, tenant)
