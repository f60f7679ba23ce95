"""What an acceptance reads in one statement is what is read one by one elsewhere."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest
from sqlalchemy import Connection

from identity.accounts.stops import set_stopped
from identity.audit import Act
from identity.connections.registry import add_connection, connection_for, get_connection
from identity.errors import Misconfigured
from identity.model import PrincipalKind, Scope, ScopeKind
from identity.principals import ensure_principal, resolve_alias, service_principal
from pipeline.jobs.pins import enabled
from pipeline.jobs.tenant_setup import TenantSetup, setup_of
from pipeline.tables import workflow_settings
from tests.ledger.house import House

USERS = [("github", "1001"), ("github", "2002"), ("ghe", "1001")]


def read(house: House, tenant: str = "acme", through: str = "gh") -> TenantSetup:
    return house.database.read(lambda c: setup_of(c, tenant, [house.workflow], users=USERS, through=through))


def fits(house: House) -> str | None:
    """By the rule as steps follow it."""
    try:
        return house.database.read(lambda c: connection_for(c, "acme", "github")).id
    except Misconfigured:
        return None


def add(house: House, name: str, tenant: str | None, **config: str) -> None:
    def write(c: Connection) -> None:
        other = replace(get_connection(c, "gh"), id=name, tenant=tenant, config=config)
        add_connection(c, other, now=datetime.now(UTC))

    house.database.write(write)


def test_settings_people_and_service_are_the_tenants(house: House) -> None:
    def change(c: Connection) -> None:
        c.execute(workflow_settings.update().where(workflow_settings.c.tenant_id == "acme").values(config={"a": 1}))
        c.execute(workflow_settings.update().where(workflow_settings.c.tenant_id == "globex").values(enabled=False))

    house.database.write(change)
    acme, globex, nobody = read(house), read(house, "globex"), read(house, "nobody")
    assert (acme.configs, globex.configs, nobody.configs) == ({"say_it": {"a": 1}}, {}, {})
    assert acme.configs["say_it"] == house.database.read(lambda c: enabled(c, "acme", "say_it"))
    assert (acme.people, globex.people) == ({USERS[0]: "acme.ada"}, {USERS[0]: "globex.ada"})
    assert (acme.service, globex.service) == ("acme.service", "globex.service")


def test_people_are_those_of_the_connection_that_names_them(house: House) -> None:
    add(house, "own", "acme", people="github:enterprise")
    for through in ("gh", "own", "unknown"):
        one_by_one = {
            (provider, external): house.database.read(
                lambda c, p=provider, e=external, t=through: resolve_alias(c, "acme", p, e, through=t)  # type: ignore[misc]
            )
            for provider, external in USERS
        }
        found = {user: principal for user, principal in one_by_one.items() if principal is not None}
        assert read(house, through=through).people == found
    assert read(house, through="own").people == {}


def test_no_service_and_two_are_refused_in_the_same_words(house: House) -> None:
    second = partial(ensure_principal, id="acme.second", tenant="acme", kind=PrincipalKind.SERVICE, name="second")
    house.database.write(lambda c: second(c, now=datetime.now(UTC)))
    for tenant, said in (("acme", "more than one"), ("nobody", "no service principal")):
        with pytest.raises(Misconfigured, match=said) as one_by_one:
            house.database.read(lambda c, tenant=tenant: service_principal(c, tenant))  # type: ignore[misc]
        with pytest.raises(Misconfigured) as together:
            read(house, tenant).service  # noqa: B018 - it raises
        assert str(together.value) == str(one_by_one.value)


def test_a_tenants_own_connection_goes_before_the_platforms_and_several_are_none(house: House) -> None:
    def same() -> str | None:
        found = read(house).connections.get("github")
        assert found == fits(house)
        return found

    assert same() == "gh"
    add(house, "globexs", "globex")
    assert same() == "gh"
    add(house, "another", None)
    assert same() is None  # two of the platform's
    add(house, "own", "acme")
    assert same() == "own"
    add(house, "own-too", "acme")
    assert same() is None


def stop(house: House, *names: str, stopped: bool = True) -> None:
    for name in names:
        scope = Scope(kind=ScopeKind.CONNECTION, key=name)
        act = Act(audit_id=house.ids("aud"), by="test", now=datetime.now(UTC))
        house.database.write(partial(set_stopped, scope=scope, act=act, stopped=stopped, tenant=None))


@pytest.mark.parametrize("tenant", ["acme", None], ids=["a tenant's own", "the platform's"])
def test_of_several_that_fit_the_stopped_do_not_count(house: House, tenant: str | None) -> None:
    def found() -> str | None:
        one = read(house).connections.get("github")
        assert one == fits(house)
        return one

    former = "gh"
    if tenant is not None:
        former = "own"
        add(house, former, tenant)
    stop(house, former)
    assert found() == former  # alone, it is the one: its jobs are cancelled as stopped, not looked for elsewhere
    stop(house, former, stopped=False)
    add(house, "second", tenant)
    with pytest.raises(Misconfigured, match=f"{former}, second: none is used until all but one are stopped"):
        house.database.read(lambda c: connection_for(c, "acme", "github"))
    assert found() is None
    stop(house, former)
    assert found() == "second"
    stop(house, "second")
    with pytest.raises(
        Misconfigured, match=f"all are stopped: {former}, second: open one, `aswhom connections open ID`"
    ):
        house.database.read(lambda c: connection_for(c, "acme", "github"))
    assert found() is None
    stop(house, former, stopped=False)
    assert found() == former


def test_a_tenants_own_that_is_stopped_does_not_give_way_to_the_platforms(house: House) -> None:
    add(house, "own", "acme")
    stop(house, "own")
    assert (read(house).connections["github"], fits(house)) == ("own", "own")
