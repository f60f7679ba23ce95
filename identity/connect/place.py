"""In which workspace somebody consented: it must be one that was listed for the tenant.

The consent pages of Slack and Linear let one choose a workspace, and many people are in several. A token of another
company's would act there, and its user's id is one that the tenant's own workspace never sends.
"""

from __future__ import annotations

from identity.connect.arrival import Arrival
from identity.connect.reasons import AGAIN, OPERATOR, Why, refuse
from identity.installations import listed_at
from identity.providers.profile import ExternalIdentity
from identity.store import Store


def check_place(store: Store, arrival: Arrival, external: ExternalIdentity | None) -> None:
    """Refuse a workspace that is not the tenant's. Nothing listed there, anybody's or its own, and nothing is known.

    Raises Refusal.
    """
    places = frozenset() if external is None else external.places
    if not places:
        return  # a provider without workspaces, or one that does not say
    owner, tenant = arrival.owner, arrival.session.key.tenant
    listed = store.read(lambda connection: listed_at(connection, owner.id))
    ours = {place for place, whose in listed.items() if whose == tenant}
    if places & ours or not (ours or places & listed.keys()):
        return
    name, named = arrival.provider, ", ".join(sorted(places))
    refuse(
        Why.WRONG_ACCOUNT,
        f"you gave access in a workspace at {name} ({named}) that is not listed as your company's here",
        f"choose your company's workspace on {name}'s page: {AGAIN}; if you did, {OPERATOR}",
        final=True,
        places=named,
    )
