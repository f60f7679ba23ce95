"""In which workspace somebody consented, held against those that are listed for the tenant."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import Connection, delete, select, update

from identity.audit.tables import audit
from identity.connect.flow import Connected, ConnectRefused
from identity.connect.reasons import Why
from identity.connections.installations import remove_installation, were_seen
from identity.connections.secrets import CLIENT_SECRET, add_secret, seal_secret
from identity.secret import Secret
from identity.tables import connection_secrets, provider_connections
from tests.identity.browser_flow import BrowserFlow, why
from tests.identity.places import acts_in, list_place
from tests.ledgers import ONLY_SQLITE

pytestmark = ONLY_SQLITE


@pytest.mark.parametrize("any_account", [False, True])
def test_a_consent_in_a_workspace_that_is_not_the_tenants_is_refused(flow: BrowserFlow, any_account: bool) -> None:
    """Whoever may connect, an admin's `--any-account` included: the workspace is the tenant's, or it is not."""
    list_place(flow, "T_ACME", "acme")
    acts_in(flow, "T_OTHER", "E_OTHER")
    outcome = flow.consents(any_account=any_account)
    assert isinstance(outcome, ConnectRefused)
    assert why(outcome) is Why.WRONG_ACCOUNT
    assert "(E_OTHER, T_OTHER) that is not listed as your company's" in outcome.reason
    assert "choose your company's workspace" in outcome.next_step
    assert (flow.world.generation(), flow.woken) == (0, [])
    (detail,) = flow.world.store.read(
        lambda c: c.scalars(select(audit.c.detail).where(audit.c.kind == "connect.refused")).all()
    )
    assert detail["places"] == "E_OTHER, T_OTHER"


@pytest.mark.parametrize("listed", ["T_ACME", "E_ACME"])
def test_the_workspace_or_its_organization_is_listed(flow: BrowserFlow, listed: str) -> None:
    list_place(flow, "T_SECOND", "acme")
    list_place(flow, listed, "acme")
    acts_in(flow, "T_ACME", "E_ACME")
    assert isinstance(flow.consents(), Connected)


def test_where_a_consent_was_taken_is_kept_and_where_one_was_refused_is_not(flow: BrowserFlow) -> None:
    acts_in(flow, "T_ACME", "E_ACME")
    assert isinstance(flow.consents(), Connected)
    list_place(flow, "T_GLOBEX", "globex")
    acts_in(flow, "T_GLOBEX", "E_GLOBEX")
    assert isinstance(flow.consents(), ConnectRefused)
    owner = flow.world.owner.id
    seen = [
        flow.world.store.read(partial(were_seen, owner=owner, external_ids=[one])) for one in ("E_ACME", "E_GLOBEX")
    ]
    assert seen == [True, False]


def test_where_nothing_is_listed_only_what_is_anothers_is_refused(flow: BrowserFlow) -> None:
    list_place(flow, "T_GLOBEX", "globex")
    acts_in(flow, "T_GLOBEX")
    assert why(flow.consents()) is Why.WRONG_ACCOUNT
    acts_in(flow, "T_ACME")
    assert isinstance(flow.consents(), Connected)


def test_of_a_tenants_own_connection_that_has_listed_none_is_left_when_the_last_was_taken_back(
    flow: BrowserFlow,
) -> None:
    world = flow.world
    own = replace(world.owner, tenant="acme")
    now = world.clock.now

    def make_acmes_own(connection: Connection) -> None:
        row = provider_connections.c.id == own.id
        connection.execute(update(provider_connections).where(row).values(tenant_id=own.tenant))
        secret = Secret("client-canary")
        connection.execute(delete(connection_secrets))  # sealed as the platform's
        add_secret(connection, seal_secret(world.vault, own, id="own", name=CLIENT_SECRET, secret=secret, now=now))

    world.store.write(make_acmes_own)
    acts_in(flow, "T_ACME")
    list_place(flow, "T_ACME", "acme")
    world.store.write(partial(remove_installation, owner=own.id, external_id="T_ACME"))
    assert why(flow.consents()) is Why.WRONG_ACCOUNT


@pytest.mark.parametrize("ours", ["T_ACME", "E_BOTH"])
def test_a_workspace_of_one_in_an_organization_of_another_is_for_the_operator_to_settle(
    flow: BrowserFlow, ours: str
) -> None:
    """What comes from there is the organization's: a consent would be answered by the other's workflows."""
    list_place(flow, ours, "acme")
    list_place(flow, "E_BOTH" if ours == "T_ACME" else "T_ACME", "globex")
    acts_in(flow, "T_ACME", "E_BOTH")
    outcome = flow.consents()
    assert isinstance(outcome, ConnectRefused)
    assert why(outcome) is Why.OPERATOR
    assert "for another one as well" in outcome.reason
    assert flow.world.generation() == 0


def test_a_provider_that_names_no_workspace_is_not_held_to_one(flow: BrowserFlow) -> None:
    list_place(flow, "T_ACME", "acme")
    assert isinstance(flow.consents(), Connected)
    # Nobody knows where they are, so an end anywhere may be of theirs.
    assert flow.world.store.read(partial(were_seen, owner=flow.world.owner.id, external_ids=["T_OTHER"]))
