"""Accounts and what belongs to them: moves, consents, provider connections, aliases."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from identity import principals
from identity.accounts import states as accounts
from identity.accounts.grants import bury
from identity.accounts.states import MOVES
from identity.connect.consent_ledger import Consented
from identity.connections import installations
from identity.connections import registry as connections
from identity.connections import secrets as connection_secrets
from identity.connections.secrets import CLIENT_SECRET, WEBHOOK_SECRET, seal_secret
from identity.errors import BadInput, Misconfigured
from identity.model import AccountKey, AccountState, PrincipalKind, ProviderConnection, RuledOut, Scope, ScopeKind
from identity.secret import Secret
from identity.sql.state_machine import IllegalMove
from identity.tables import accounts as accounts_table
from tests.identity.world import ANNA, World


@pytest.mark.parametrize("source", AccountState)
@pytest.mark.parametrize("to", AccountState)
def test_an_account_moves_only_as_the_table_allows(world: World, source: AccountState, to: AccountState) -> None:
    account = world.consent()
    world.store.write(lambda connection: connection.execute(update(accounts_table).values(state=source)))

    def move() -> bool:
        return world.store.write(
            lambda connection: accounts.move_account(connection, account, to=to, reason=None, now=world.clock.now)
        )

    if source is to:
        assert move() is False
    elif to in MOVES.allowed[source]:
        assert move() is True
        assert world.state() is to
    else:
        with pytest.raises(IllegalMove):
            move()
        assert world.state() is source


def test_a_key_is_read_back_from_its_text() -> None:
    assert AccountKey.parse(str(ANNA)) == ANNA
    assert AccountKey.parse(ANNA.scope.key) == ANNA
    with pytest.raises(ValueError, match="unpack"):
        AccountKey.parse(f"{ANNA}/more")


def test_a_consent_makes_a_new_generation_and_never_resets_it(world: World) -> None:
    first = world.consent()
    assert world.consent() == first
    world.revoke(Scope(kind=ScopeKind.ACCOUNT, key=str(ANNA)))
    assert world.state() is AccountState.REVOKED
    assert world.consent() == first
    assert (world.generation(), world.state()) == (3, AccountState.ACTIVE)


def test_parking_makes_the_row_that_a_consent_fills(world: World) -> None:
    parked = world.store.write(
        lambda connection: accounts.pending_account(
            connection, ANNA, id="parked", provider="github", now=world.clock.now
        )
    )
    assert world.state() is AccountState.PENDING
    assert world.consent() == parked == "parked"
    assert world.state() is AccountState.ACTIVE


@pytest.mark.parametrize(
    ("kind", "key", "refused"),
    [
        (ScopeKind.TENANT, "acme", True),
        (ScopeKind.CONNECTION, "forge", True),
        (ScopeKind.USER, "anna", True),
        (ScopeKind.ACCOUNT, str(ANNA), True),
        (ScopeKind.AGENT, "bot", False),
    ],
)
def test_a_consent_whose_session_began_before_a_revocation_is_refused(
    world: World, kind: ScopeKind, key: str, refused: bool
) -> None:
    began = world.number()
    world.revoke(Scope(kind=kind, key=key))
    outcome = world.try_consent(consented=began)
    assert isinstance(outcome, RuledOut if refused else Consented)


def test_burying_an_older_generation_changes_nothing(world: World) -> None:
    account = world.consent()
    world.consent()
    now = world.clock.now
    buried = world.store.write(lambda connection: bury(connection, account, generation=1, reason="dead", now=now))
    assert not buried
    assert (world.generation(), world.state()) == (2, AccountState.ACTIVE)


def test_making_things_twice_makes_them_once(world: World) -> None:
    again = world.store.write(
        lambda connection: principals.ensure_principal(
            connection, id="other", tenant="acme", kind=PrincipalKind.USER, name="anna", now=world.clock.now
        )
    )
    assert again.id == "anna"


@pytest.mark.parametrize("id", ["a/b", "acme.eu"])
def test_the_id_of_a_tenant_holds_no_slash_and_no_dot(world: World, id: str) -> None:
    with pytest.raises(BadInput):
        world.store.write(lambda connection: principals.ensure_tenant(connection, id=id, name="x", now=world.clock.now))


def connection_row(name: str, tenant: str | None, provider: str = "github") -> ProviderConnection:
    return ProviderConnection(
        id=name,
        tenant=tenant,
        provider=provider,
        client_id="c",
        scopes=(),
        api_url="https://api.example",
        authorize_url="https://example/authorize",
        token_url="https://example/token",
    )


def test_a_tenants_own_connection_comes_before_the_platforms(world: World) -> None:
    def found() -> str:
        return world.store.read(lambda connection: connections.connection_for(connection, "acme", "github")).id

    assert found() == "forge"
    own = connection_row("own", "acme")
    world.store.write(lambda connection: connections.add_connection(connection, own, now=world.clock.now))
    assert found() == "own"


def test_no_connection_and_two_connections_are_the_operators_fault(world: World) -> None:
    with pytest.raises(Misconfigured, match="no provider connection to slack"):
        world.store.read(lambda connection: connections.connection_for(connection, "acme", "slack"))
    second = connection_row("second", None)
    world.store.write(lambda connection: connections.add_connection(connection, second, now=world.clock.now))
    with pytest.raises(Misconfigured, match="several provider connections to github fit tenant acme: forge, second"):
        world.store.read(lambda connection: connections.connection_for(connection, "acme", "github"))


def test_two_secrets_live_during_a_rotation(world: World) -> None:
    from datetime import timedelta

    owner, now = world.owner, world.clock.now
    new = seal_secret(
        world.vault, owner, id="secret-2", name=CLIENT_SECRET, secret=Secret("newer"), now=now + timedelta(seconds=1)
    )
    world.store.write(lambda connection: connections.pause_connection(connection, "forge", reason="refused"))
    world.store.write(lambda connection: connection_secrets.add_secret(connection, new))
    assert world.store.read(lambda connection: connections.paused_reason(connection, "forge")) is None

    def live() -> list[str]:
        found = world.store.read(lambda connection: connection_secrets.live_secrets(connection, "forge", CLIENT_SECRET))
        return [secret.open(world.vault).reveal() for secret in found]

    assert live() == ["newer", "client-canary"]
    gone = now - timedelta(days=1)
    assert world.store.write(lambda connection: connection_secrets.retire_secret(connection, "secret-1", at=gone))
    assert live() == ["newer"]
    assert (
        world.store.read(lambda connection: connection_secrets.live_secrets(connection, "forge", WEBHOOK_SECRET)) == ()
    )


def test_an_alias_belongs_to_one_principal(world: World) -> None:
    def link(principal: str, login: str) -> bool:
        return world.store.write(
            lambda connection: principals.link_alias(
                connection,
                tenant="acme",
                provider="github",
                external_id="4711",
                principal=principal,
                login=login,
                made_by="admin:eve",
                now=world.clock.now,
            )
        )

    def resolved(external_id: str, tenant: str = "acme") -> str | None:
        return world.store.read(lambda connection: principals.resolve_alias(connection, tenant, "github", external_id))

    assert link("anna", "mona")
    assert link("anna", "mona-renamed")
    assert not link("robot", "mona")
    assert resolved("4711") == "anna"
    assert resolved("1") is None
    assert resolved("4711", tenant="other") is None


def test_an_installation_says_whose_it_is(world: World) -> None:
    def add() -> bool:
        return world.store.write(
            lambda connection: installations.add_installation(
                connection, owner="forge", external_id="77", tenant="acme", now=world.clock.now
            )
        )

    assert (add(), add()) == (True, False)
    whose = world.store.read(
        lambda connection: installations.whose_installations(connection, "forge", ["77"], within=None)
    )
    assert (whose.tenants, whose.listed) == ({"acme"}, {"77"})
    assert world.store.write(
        lambda connection: installations.remove_installation(connection, owner="forge", external_id="77")
    )


def test_a_tenant_has_one_service_principal(world: World) -> None:
    assert world.store.read(lambda connection: principals.service_principal(connection, "acme")).id == "robot"
    with pytest.raises(Misconfigured, match="no service principal"):
        world.store.read(lambda connection: principals.service_principal(connection, "other"))
