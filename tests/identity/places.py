"""A provider with workspaces: where a token acts, and which are listed as whose."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from identity.connections.installations import add_installation
from identity.principals import ensure_tenant
from identity.providers.profile import WhoAmI
from tests.identity.browser_flow import BrowserFlow


def acts_in(flow: BrowserFlow, *places: str) -> None:
    """From now on the provider says that its tokens act in these."""
    asked = flow.profile.whoami
    assert asked is not None

    def read(*answer: object) -> object:
        external = asked.read(*answer)  # type: ignore[arg-type]
        return external and replace(external, places=frozenset(places))

    flow.profile = replace(flow.profile, whoami=WhoAmI(request=asked.request, read=read))  # type: ignore[arg-type]


def list_place(flow: BrowserFlow, place: str, tenant: str) -> None:
    """An operator lists a workspace as this tenant's."""
    now = flow.world.clock.now
    flow.world.store.write(lambda c: ensure_tenant(c, id=tenant, name=tenant, now=now))
    listed = partial(add_installation, owner=flow.world.owner.id, external_id=place, tenant=tenant, now=now)
    assert flow.world.store.write(listed)
