"""Provider connections that an operator corrects or removes, beside others who use them."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, inspect, select, update

from identity.accounts.grants import seal_answer
from identity.accounts.states import pending_account
from identity.audit import Act
from identity.audit.tables import audit
from identity.capability.tables import audiences
from identity.connect.consent_ledger import AnotherClient, Consent, Consented, store_consent
from identity.connect.leftovers import Leftover, leave
from identity.connections.discovery import Metadata
from identity.connections.installations import add_installation, remove_installation, tenant_of_installation
from identity.connections.registration import Change, Registration, register
from identity.connections.registry import get_connection, pause_connection, paused_reason, was_changed
from identity.errors import BadInput
from identity.model import AccountKey, Credential, TokenAnswer
from identity.providers import PROFILES
from identity.secret import Secret
from identity.sql.metadata import metadata
from identity.sql.sequence import next_number
from identity.tables import accounts, installations, provider_connections
from identity.withdrawals.withdrawal import WithdrawalState, settle
from pipeline.db.database import Database
from pipeline.desk import connections as acts
from pipeline.desk import tenants
from tests.ledger.acts import until_awaited
from tests.ledger.house import House
from tests.loopback import LOOPBACK

NOW = datetime.now(UTC)


def added(database: Database, id: str, *, provider: str = "linear", **more: Any) -> None:
    if provider == "github":  # beside the house's, which is at another server
        more["config"] = {"people": id, **more.get("config", {})}
    given = Registration(id=id, tenant=None, client_id="c", scopes=("read",), **more)
    owner = register(given, PROFILES[provider], LOOPBACK, metadata=None, has_secret=False, has_key=False)
    database.write(lambda c: acts.add(c, owner, [], Act(audit_id=f"aud-{id}", by="test", now=NOW)))


def change(c: Connection, id: str, to: Change, audit_id: str = "aud-1") -> list[str]:
    profile = PROFILES[get_connection(c, id).provider]
    return acts.change(c, id, to, profile, LOOPBACK, Act(audit_id=audit_id, by="test", now=NOW))


def remove(c: Connection, id: str) -> None:
    acts.remove(c, id, Act(audit_id="aud-removed", by="test", now=NOW))


def test_what_is_not_named_stays_as_others_have_left_it(house: House) -> None:
    def both(c: Connection) -> list[list[str]]:
        return [
            change(c, "spare", Change(scopes=("a", "b"), config={"app_id": "1"}), "aud-1"),
            change(c, "spare", Change(client_id="other", config={"key_id": "k"}), "aud-2"),
        ]

    added(house.database, "spare", provider="github")
    before = house.database.read(lambda c: get_connection(c, "spare"))
    assert house.database.write(both) == [["config.app_id", "scopes"], ["client_id", "config.key_id"]]
    after = replace(
        before, client_id="other", scopes=("a", "b"), config={"people": "spare", "app_id": "1", "key_id": "k"}
    )
    assert house.database.read(lambda c: get_connection(c, "spare")) == after


def test_its_client_stays_once_it_has_accounts(house: House) -> None:
    for bound in (Change(client_id="other"), Change(config={"app_id": "7"})):
        with pytest.raises(BadInput, match=r"gh has 2 account\(s\)"):
            house.database.write(partial(change, id="gh", to=bound))
    assert house.database.write(lambda c: change(c, "gh", Change(scopes=("a",)))) == ["scopes"]


def taken_back(c: Connection, *, owner: str, external_id: str, tenant: str = "acme") -> None:
    of = {"connection_id": owner, "external_id": external_id, "tenant": tenant}
    tenants.remove_installation(c, Act(audit_id=f"aud-{external_id}", by="test", now=NOW), **of)


def waits(house: House, owner: str) -> AccountKey:
    """Ada's account at *owner*, which a step has parked for."""
    key = AccountKey(tenant="acme", connection=owner, principal="acme.ada")
    house.database.write(lambda c: pending_account(c, key, id="parked", provider="linear", now=NOW))
    return key


def consents(c: Connection, house: House, key: AccountKey, *, client: str | None) -> object:
    """What comes of a consent whose tokens *client* won; None: an admin gave them."""
    answer = TokenAnswer(
        access_token=Secret("a"), refresh_token=Secret("r"), expires_at=None, scopes=(), token_type="bearer"
    )
    sealed = seal_answer(house.vault, answer, tenant="acme", account="parked", provider="linear", generation=1)
    consent = Consent(
        id="parked",
        key=key,
        provider="linear",
        credential=Credential.AUTHORIZATION_CODE,
        consented=next_number(c),
        any_account=True,
        client_id=client,
    )
    return store_consent(c, consent, sealed, now=NOW)


def test_an_account_that_has_won_nothing_binds_no_client(house: House) -> None:
    """A step parks for it: the mistyped client for which nobody can consent is corrected all the same."""
    added(house.database, "spare")
    key = waits(house, "spare")
    assert house.database.write(lambda c: change(c, "spare", Change(client_id="other"))) == ["client_id"]
    assert isinstance(house.database.write(lambda c: consents(c, house, key, client="c")), AnotherClient)
    assert isinstance(house.database.write(lambda c: consents(c, house, key, client="other")), Consented)
    with pytest.raises(BadInput, match=r"spare has 1 account\(s\)"):
        house.database.write(lambda c: change(c, "spare", Change(client_id="c"), "aud-2"))


def test_what_a_refused_connect_had_won_binds_its_client_until_it_has_ended(house: House) -> None:
    added(house.database, "spare")
    key = waits(house, "spare")
    answer = TokenAnswer(access_token=Secret("a"), refresh_token=None, expires_at=None, scopes=(), token_type="bearer")
    left = Leftover(key=key, provider="linear", client_id="c", started=1, answer=answer)
    house.database.write(lambda c: leave(c, left, left.sealed(house.vault), account_id="new", now=NOW))
    with pytest.raises(BadInput, match=r"spare has 1 account\(s\)"):
        house.database.write(lambda c: change(c, "spare", Change(client_id="other")))
    house.database.write(lambda c: settle(c, left.id, to=WithdrawalState.DONE, reason=None, now=NOW))
    assert house.database.write(lambda c: change(c, "spare", Change(client_id="other"))) == ["client_id"]


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_consent_beside_a_correction_of_its_client_waits_and_is_refused(house: House) -> None:
    """SQLite has one writer anyway."""
    added(house.database, "spare")
    key = waits(house, "spare")
    came: list[object] = []
    by = threading.Thread(
        target=lambda: came.append(house.database.write(lambda c: consents(c, house, key, client="c")))
    )
    to = Change(client_id="other")
    assert until_awaited(house.database, lambda c: change(c, "spare", to), by=by) == ["client_id"]
    assert came == [AnotherClient()]


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_correction_of_the_app_beside_an_admins_consent_waits_and_is_refused(house: House) -> None:
    """No lock is taken for it: a new account, and one that is updated twice, has its foreign keys checked.

    SQLite has one writer anyway.
    """
    added(house.database, "spare", provider="github", config={"app_id": "1"})
    key = waits(house, "spare")
    told: list[str] = []

    def change_late() -> None:
        try:
            house.database.write(lambda c: change(c, "spare", Change(config={"app_id": "2"})))
        except BadInput as error:
            told.append(str(error))

    by = threading.Thread(target=change_late)
    came = until_awaited(house.database, lambda c: consents(c, house, key, client=None), by=by)
    assert isinstance(came, Consented)
    assert ["spare has 1 account(s)" in one for one in told] == [True]


def test_whom_googles_assertions_are_of_stays_once_it_has_accounts(house: House) -> None:
    added(house.database, "drive", provider="google", config={"service_account": "a@x.example", "key_id": "1"})
    key = waits(house, "drive")
    assert isinstance(house.database.write(lambda c: consents(c, house, key, client="c")), Consented)
    with pytest.raises(BadInput, match=r"config\.service_account stays"):
        house.database.write(lambda c: change(c, "drive", Change(config={"service_account": "b@x.example"})))
    assert house.database.write(lambda c: change(c, "drive", Change(config={"key_id": "2"}))) == ["config.key_id"]


@pytest.mark.parametrize(
    ("to", "used"),
    [
        ({"key_header": "x-key"}, False),
        ({"app_id": "7"}, True),
        ({"key_id": "2"}, True),
        ({"assertion_audience": "https://test.example"}, True),
    ],
)
def test_what_no_refusal_of_the_client_can_be_of_resumes_nothing(
    house: House, to: dict[str, str], *, used: bool
) -> None:
    added(house.database, "spare", provider="github")
    house.database.write(lambda c: pause_connection(c, "spare", reason="its client was refused"))
    house.database.write(lambda c: change(c, "spare", Change(config=to)))
    assert (house.database.read(lambda c: paused_reason(c, "spare")) is None) == used
    assert len(recorded(house, "connection.resumed")) == used


@pytest.mark.parametrize(
    ("token_url", "used"), [("https://idp.example/token", False), ("https://idp.example/v2", True)]
)
def test_another_token_endpoint_of_its_issuer_is_tried_though_the_one_before_had_refused_the_client(
    house: House, token_url: str, *, used: bool
) -> None:
    found = Metadata(
        issuer="https://idp.example",
        authorize_url="https://idp.example/authorize",
        token_url=token_url,
        revocation_url=None,
        userinfo_url=None,
        jwks_url=None,
        client_auths=(),
        checks_challenges=False,
        sends_iss=False,
    )
    added(house.database, "spare", token_url="https://idp.example/token")
    house.database.write(lambda c: pause_connection(c, "spare", reason="its client was refused"))
    house.database.write(lambda c: acts.readdress(c, "spare", found, Act(audit_id="aud-1", by="test", now=NOW)))
    assert (house.database.read(lambda c: paused_reason(c, "spare")) is None) == used
    assert recorded(house, "connection.resumed") == [{"connection": "spare", "was_paused": True}] * used


def test_what_was_corrected_is_recorded_as_it_was_and_as_it_is(house: House) -> None:
    added(house.database, "spare", provider="github", config={"app_id": "1"})
    to = Change(scopes=("a",), config={"app_id": "2", "key_id": "k"})
    with pytest.raises(BadInput, match="GitHub has no setting appid: it takes app_id, "):
        house.database.write(lambda c: change(c, "spare", replace(to, config={"appid": "2"})))
    house.database.write(lambda c: change(c, "spare", to))
    (row,) = recorded(house, "connection.changed")
    assert row["before"] == {"config.app_id": "1", "config.key_id": None, "scopes": ["read"]}
    assert row["after"] == {"config.app_id": "2", "config.key_id": "k", "scopes": ["a"]}
    assert row["changed"] == ["config.app_id", "config.key_id", "scopes"]


def test_a_connection_that_was_in_use_is_resumed_all_the_same(house: House) -> None:
    """Else an older refusal, on its way, pauses what its operator has just mended at the provider."""
    asked = house.database.write(next_number)
    assert not house.database.write(lambda c: acts.resume(c, "gh", Act(audit_id="aud-1", by="test", now=NOW)))
    assert house.database.write(lambda c: was_changed(c, get_connection(c, "gh"), asked=asked))
    assert recorded(house, "connection.resumed") == [{"connection": "gh", "was_paused": False}]


def recorded(house: House, kind: str) -> list[dict[str, Any]]:
    """The details of the audit's rows of that kind."""
    found = select(audit.c.detail).where(audit.c.kind == kind)
    return [dict(one) for one in house.database.read(lambda c: c.execute(found).scalars().all())]


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

    take_back = partial(taken_back, owner="gh", external_id="installation-acme")
    house.database.write(partial(acts_through, of="acme.ada"))  # her own number at the provider, by chance
    house.database.write(partial(acts_through, of="acme.service"))
    with pytest.raises(BadInput, match=r"aswhom revoke account acme/gh/acme\.service`$"):
        house.database.write(take_back)
    house.database.write(partial(acts_through, of="acme.service", state="revoked"))
    with pytest.raises(BadInput, match="is acme's by now, and not globex's"):
        house.database.write(partial(take_back, tenant="globex"))
    house.database.write(take_back)
    left = house.database.read(lambda c: c.execute(select(installations.c.external_id)).scalars().all())
    assert left == ["installation-globex"]


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_an_installation_that_became_anothers_meanwhile_is_not_taken_from_it(house: House) -> None:
    """SQLite has one writer anyway."""
    mine = {"owner": "gh", "external_id": "installation-acme"}
    due = [1]

    def meanwhile(*given: Any) -> None:
        if due and given[2].lower().startswith("delete from installations"):
            due.clear()
            house.database.write(lambda c: remove_installation(c, **mine))  # as the provider's signal has it
            house.database.write(lambda c: add_installation(c, **mine, tenant="globex", now=NOW))

    def too_late(c: Connection) -> None:
        event.listen(c, "before_cursor_execute", meanwhile)
        taken_back(c, **mine)

    with pytest.raises(BadInput, match="is no longer acme's: look again"):
        house.database.write(too_late)
    assert not due
    assert house.database.read(lambda c: tenant_of_installation(c, "gh", "installation-acme")) == "globex"
    assert not recorded(house, "installation.removed")


def test_a_workspace_is_taken_back_once_its_tenant_has_no_account_there_or_another_workspace(house: House) -> None:
    """An event that ends access names the workspace alone: it would reach nobody."""
    added(house.database, "team")
    in_workspaces = partial(add_installation, owner="team", tenant="acme", now=NOW)
    house.database.write(lambda c: [in_workspaces(c, external_id=one) for one in ("T1", "T2")])
    key = waits(house, "team")

    def take_back(workspace: str) -> None:
        house.database.write(lambda c: taken_back(c, owner="team", external_id=workspace))

    assert isinstance(house.database.write(lambda c: consents(c, house, key, client="c")), Consented)
    take_back("T2")
    with pytest.raises(BadInput, match=r"aswhom revoke account acme/team/acme\.ada`$"):
        take_back("T1")
    ended = update(accounts).where(accounts.c.connection_id == "team").values(state="revoked")
    house.database.write(lambda c: c.execute(ended).rowcount)
    take_back("T1")


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_of_two_workspaces_that_are_taken_back_at_once_the_last_stays(house: House) -> None:
    """SQLite has one writer anyway."""
    added(house.database, "team")
    in_workspaces = partial(add_installation, owner="team", tenant="acme", now=NOW)
    house.database.write(lambda c: [in_workspaces(c, external_id=one) for one in ("T1", "T2")])
    key = waits(house, "team")
    house.database.write(lambda c: consents(c, house, key, client="c"))
    told: list[str] = []

    def take_the_other() -> None:
        try:
            house.database.write(lambda c: taken_back(c, owner="team", external_id="T2"))
        except BadInput as error:
            told.append(str(error))

    by = threading.Thread(target=take_the_other)
    until_awaited(house.database, lambda c: taken_back(c, owner="team", external_id="T1"), by=by)
    assert ["aswhom revoke account acme/team/acme.ada" in one for one in told] == [True]
    assert house.database.read(lambda c: tenant_of_installation(c, "team", "T2")) == "acme"


def test_an_account_that_waits_for_a_consent_is_of_no_workspace_yet(house: House) -> None:
    added(house.database, "team")
    house.database.write(lambda c: add_installation(c, owner="team", external_id="T1", tenant="acme", now=NOW))
    waits(house, "team")
    house.database.write(lambda c: taken_back(c, owner="team", external_id="T1"))
