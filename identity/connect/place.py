"""Checks that the workspace in which somebody consented is listed for the tenant.

The consent pages of Slack and Linear let people choose a workspace, and many belong to several. A token of another
company's workspace would act there, under a user id that the tenant's own workspace never sends.
"""

from __future__ import annotations

from sqlalchemy import Connection

from identity.connect.arrival import Arrival
from identity.connect.reasons import AGAIN, OPERATOR, Why, refuse
from identity.connections.installations import ANYWHERE, has_listing, listed_as, note_places, takes_any
from identity.model import ProviderConnection
from identity.providers.profile import ExternalIdentity


def check_place(connection: Connection, arrival: Arrival, external: ExternalIdentity | None) -> None:
    """Raise Refusal for a workspace that is not the tenant's. Runs in the transaction that stores the consent.

    An unlisted workspace is accepted if nothing is listed for the tenant either. Accepted places are recorded, so that
    a later signal from there that matches no account is not taken for a stranger's.
    """
    places = frozenset() if external is None else external.places
    owner, tenant = arrival.owner, arrival.session.key.tenant
    if not places:  # the provider has no workspaces, or does not name it: it may be anywhere
        note_places(connection, owner.id, (ANYWHERE,))
        return
    whose = set(listed_as(connection, owner.id, places).values())
    if whose == {tenant} or not (whose or _says_which(connection, owner, tenant)):
        note_places(connection, owner.id, places)
        return
    name, named = arrival.provider, ", ".join(sorted(places))
    if tenant in whose:  # a workspace of one tenant in another's organization: its events belong to one tenant only
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
    """True if the listing decides which workspaces are the tenant's; on its own connection even an emptied one."""
    if owner.tenant is not None:
        return not takes_any(connection, owner.id)
    return has_listing(connection, owner.id, tenant)
