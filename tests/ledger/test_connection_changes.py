"""Provider connections that an operator corrects or removes, beside others who use them."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest
from sqlalchemy import Connection, insert, inspect, select, update

from identity.addresses import AddressPolicy
from identity.audit import Act
from identity.capability.tables import audiences
from identity.connections import get_connection
from identity.errors import BadInput
from identity.installations import add_installation
from identity.providers import PROFILES
from identity.registration import Change, Registration, register
from identity.tables import accounts, installations, metadata, provider_connections
from pipeline.database import Database
from pipeline.desk import connections as desk
from pipeline.desk import tenants
from tests.ledger.acts import until_awaited
from tests.ledger.house import House

NOW = datetime.now(UTC)
ALLOWING = AddressPolicy(allow_hosts=frozenset({"127.0.0.1"}))


def added(database: Database, id: str) -> None:
    given = Registration(id=id, tenant=None, client_id="c", scopes=("read",))
    owner = register(given, PROFILES["linear"], ALLOWING, metadata=None, has_secret=False, has_key=False)
    database.write(lambda c: desk.register(c, owner, [], Act(audit_id=f"aud-{id}", by="test", now=NOW)))


def change(c: Connection, id: str, to: Change, audit_id: str = "aud-1") -> list[str]:
    profile = PROFILES[get_connection(c, id).provider]
    return desk.change(c, id, to, profile, ALLOWING, Act(audit_id=audit_id, by="test", now=NOW))


def remove(c: Connection, id: str) -> None:
    desk.remove(c, id, Act(audit_id="aud-removed", by="test", now=NOW))


def test_what_is_not_named_stays_as_others_have_left_it(house: House) -> None:
    def both(c: Connection) -> list[list[str]]:
        return [
            change(c, "spare", Change(scopes=("a", "b"), config={"app_id": "1"}), "aud-1"),
            change(c, "spare", Change(client_id="other", config={"key_id": "k"}), "aud-2"),
        ]

    added(house.database, "spare")
    before = house.database.read(lambda c: get_connection(c, "spare"))
    assert house.database.write(both) == [["config.app_id", "scopes"], ["client_id", "config.key_id"]]
    after = replace(before, client_id="other", scopes=("a", "b"), config={"app_id": "1", "key_id": "k"})
    assert house.database.read(lambda c: get_connection(c, "spare")) == after


def test_its_client_stays_once_it_has_accounts(house: House) -> None:
    for bound in (Change(client_id="other"), Change(config={"app_id": "7"})):
        with pytest.raises(BadInput, match=r"gh has 2 account\(s\)"):
            house.database.write(partial(change, id="gh", to=bound))
    assert house.database.write(lambda c: change(c, "gh", Change(scopes=("a",)))) == ["scopes"]


def test_whatever_refers_to_a_connection_is_in_the_way_of_its_removal(house: House) -> None:
    house.job()
    with pytest.raises(BadInput, match=r"accounts \(2\), deliveries \(1\), installations \(2\), jobs \(1\)"):
        house.database.write(lambda c: remove(c, "gh"))
    added(house.database, "spare")
    audience = {
        "id": "shop",
        "uri": "https://shop.example",
        "connection_id": "spare",
        "algorithm": "ES256",
        "passes_to": [],
        "secret_sha256": "0" * 64,
        "created_at": NOW,
    }
    house.database.write(lambda c: c.execute(insert(audiences), audience))
    with pytest.raises(BadInput, match=r"capability_audiences \(1\)"):
        house.database.write(lambda c: remove(c, "spare"))


def test_the_database_knows_of_every_reference(database: Database) -> None:
    """A key that was left out of a migration would not be in the way."""
    there = database.read(lambda c: inspect(c).get_multi_foreign_keys())
    found = {
        name for (_, name), keys in there.items() for key in keys if key["referred_table"] == "provider_connections"
    }
    ours = {
        table.name
        for table in metadata.tables.values()
        for column in table.c
        if column.references(provider_connections.c.id)
    }
    assert found == ours


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_what_comes_to_refer_to_it_meanwhile_is_seen(house: House) -> None:
    """SQLite has one writer anyway."""
    added(house.database, "spare")
    told: list[str] = []

    def remove_late() -> None:
        try:
            house.database.write(lambda c: remove(c, "spare"))
        except BadInput as error:
            told.append(str(error))

    refer = partial(add_installation, owner="spare", external_id="7", tenant="acme", now=NOW)
    assert until_awaited(house.database, refer, by=threading.Thread(target=remove_late))
    assert len(told) == 1
    assert "installations (1)" in told[0]
    there = select(provider_connections.c.id).where(provider_connections.c.id == "spare")
    assert house.database.read(lambda c: c.execute(there).scalar_one_or_none()) == "spare"


def test_an_installation_is_taken_back_once_nobody_acts_through_it(house: House) -> None:
    def acts_through(c: Connection, *, of: str, state: str = "active") -> None:
        values = {"external_id": "installation-acme", "state": state}
        c.execute(update(accounts).where(accounts.c.principal_id == of).values(values))

    def take_back(c: Connection, tenant: str = "acme") -> None:
        of = {"connection_id": "gh", "external_id": "installation-acme", "tenant": tenant}
        tenants.remove_installation(c, Act(audit_id="aud-back", by="test", now=NOW), **of)

    house.database.write(partial(acts_through, of="acme.ada"))  # her own number at the provider, by chance
    house.database.write(partial(acts_through, of="acme.service"))
    with pytest.raises(BadInput, match=r"aswhom revoke account acme/gh/acme\.service`$"):
        house.database.write(take_back)
    house.database.write(partial(acts_through, of="acme.service", state="revoked"))
    with pytest.raises(BadInput, match="is acme's by now, and not globex's"):
        house.database.write(lambda c: take_back(c, "globex"))
    house.database.write(take_back)
    left = house.database.read(lambda c: c.execute(select(installations.c.external_id)).scalars().all())
    assert left == ["installation-globex"]
