"""Every sealed column: nothing opens in another row, and everything moves under the newest key."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import pytest
from sqlalchemy import Connection, LargeBinary, insert, select, update

from identity.accounts.grants import ACCESS, EMPTIED, REFRESH, token_binding
from identity.accounts.states import get_account
from identity.capability.keys import NewKey, ensure, load, open_key
from identity.capability.model import Algorithm
from identity.connect_sessions.sessions import ConnectSession, add_session, get_session, open_verifier, seal_verifier
from identity.connections.registry import add_connection
from identity.connections.secrets import CLIENT_SECRET, add_secret, live_secrets, seal_secret
from identity.errors import Misconfigured
from identity.keys.vault import Vault
from identity.model import AccountKey
from identity.refresh.intents import TOKEN_ANSWER, IntentState, RefreshIntent, open_intent, store_answer
from identity.refresh.situation import read_situation
from identity.sealed import rewrap
from identity.sealed.rewrap import SEALED, Field, in_use
from identity.secret import Secret
from identity.sql.metadata import metadata
from identity.tables import grants, principals
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawal import SHREDDED, get_withdrawal
from tests.identity.world import ANNA, World
from tests.ledgers import MOSTLY_SQLITE

BEN = AccountKey(tenant="acme", connection="forge", principal="ben")
OLD, NEW = bytes(32), b"n" * 32


@dataclass
class Sealed:
    """Two rows of one column, and how the code opens what is in them."""

    rows: tuple[str, str]
    open: Callable[[Vault, int], str]


@pytest.fixture
def full(world: World) -> dict[str, Sealed]:
    """A world in which every sealed column has two rows."""
    now = world.clock()
    ben = {"id": "ben", "tenant_id": "acme", "kind": "user", "name": "ben", "created_at": now}
    world.store.write(lambda c: c.execute(insert(principals), ben))
    accounts = (world.consent(ANNA), world.consent(BEN))
    mill = replace(world.owner, id="mill")
    secret = seal_secret(world.vault, mill, id="secret-2", name=CLIENT_SECRET, secret=Secret("canary"), now=now)
    world.store.write(lambda c: add_connection(c, mill, now=now))
    world.store.write(lambda c: add_secret(c, secret))

    def answer(connection: Connection, account: str) -> None:
        situation = read_situation(connection, account)
        intent = RefreshIntent(
            id=f"intent-{account}",
            account=account,
            generation=1,
            consented=situation.grant.consented,
            state=IntentState.OPEN,
            opened=1,
            started_at=now,
            send_before=now,
            settled_by=now,
            presented=1,
        )
        open_intent(connection, intent, former=None)
        store_answer(connection, intent.id, world.vault.seal(Secret("canary"), situation.answer_binding))

    def begin(connection: Connection, key: AccountKey) -> None:
        name = f"session-{key.principal}"
        session = ConnectSession(
            id=name,
            key=key,
            state_hash=name,
            started=1,
            scopes=(),
            verifier_sealed=seal_verifier(world.vault, "acme", name, "github", state="state", verifier="canary"),
            browser_hash=None,
            expires_at=now,
            finished_at=None,
            created_at=now,
        )
        add_session(connection, session)

    for account, key in zip(accounts, (ANNA, BEN), strict=True):
        world.store.write(lambda c, account=account: answer(c, account))  # type: ignore[misc]
        world.store.write(lambda c, key=key: begin(c, key))  # type: ignore[misc]

    def withdrawn(connection: Connection, account: str) -> None:
        """Two kinds of credentials in one row: none of them is another row's."""
        found = get_account(connection, account)

        def seal(name: str) -> bytes:
            return world.vault.seal(Secret("canary"), token_binding("acme", account, found.provider, name, 1))

        row = {
            "id": f"{account}.1",
            "account_id": account,
            "origin": "grant",
            "credential": "authorization_code",
            "generation": 1,
            "consented": 1,
            "state": "pending",
            "access_sealed": seal(ACCESS),
            "refresh_sealed": seal(REFRESH),
            "answer_sealed": seal(TOKEN_ANSWER),
            "due_at": now,
            "created_at": now,
        }
        connection.execute(insert(withdrawals), row)

    for account in accounts:
        world.store.write(lambda c, account=account: withdrawn(c, account))  # type: ignore[misc]

    def of_withdrawal(name: str, column: str) -> Callable[[Vault, int], str]:
        def opened(vault: Vault, which: int) -> str:
            found = world.store.read(lambda c: get_withdrawal(c, f"{accounts[which]}.1"))
            binding = token_binding("acme", accounts[which], world.provider, name, 1)
            return vault.open(getattr(found, column), binding).reveal()

        return opened

    def token(name: str) -> Callable[[Vault, int], str]:
        return lambda vault, which: replace(world, vault=vault).token((ANNA, BEN)[which], name)

    def client_secret(vault: Vault, which: int) -> str:
        (found,) = world.store.read(lambda c: live_secrets(c, ("forge", "mill")[which], CLIENT_SECRET))
        return found.open(vault).reveal()

    def raw_answer(vault: Vault, which: int) -> str:
        situation = world.store.read(lambda c: read_situation(c, accounts[which]))
        assert situation.intent is not None
        assert situation.intent.answer_sealed is not None
        return vault.open(situation.intent.answer_sealed, situation.answer_binding).reveal()

    def verifier(vault: Vault, which: int) -> str:
        name = ("session-anna", "session-ben")[which]
        session = world.store.read(lambda c: get_session(c, name))
        assert session is not None
        return open_verifier(vault, session, "github")[1]

    pairs = [NewKey.make(algorithm, world.vault) for algorithm in Algorithm]
    for pair in pairs:
        world.store.write(partial(ensure, new=pair, now=now))
    kids = (pairs[0].kid, pairs[1].kid)

    def signing_key(vault: Vault, which: int) -> str:
        (found,) = [key for key in world.store.read(load) if key.kid == kids[which]]
        return str(open_key(vault, found).thumbprint())

    return {
        "capability_keys.private_sealed": Sealed(kids, signing_key),
        "grants.access_sealed": Sealed(accounts, token(ACCESS)),
        "grants.refresh_sealed": Sealed(accounts, token(REFRESH)),
        "connection_secrets.sealed": Sealed(("secret-1", "secret-2"), client_secret),
        "refresh_intents.answer_sealed": Sealed((f"intent-{accounts[0]}", f"intent-{accounts[1]}"), raw_answer),
        **{
            f"withdrawals.{column}": Sealed(
                (f"{accounts[0]}.1", f"{accounts[1]}.1"),
                of_withdrawal(name, column),
            )
            for name, column in (
                (ACCESS, "access_sealed"),
                (REFRESH, "refresh_sealed"),
                (TOKEN_ANSWER, "answer_sealed"),
            )
        },
        "connect_sessions.verifier_sealed": Sealed(("session-anna", "session-ben"), verifier),
    }


def test_what_empties_a_grant_or_a_withdrawal_names_each_of_its_sealed_columns() -> None:
    """A deletion of a tenant promises that none is left."""
    for table, emptied in ((grants, EMPTIED), (withdrawals, SHREDDED)):
        assert {field.name for field in SEALED if field.table is table} <= emptied.keys()


def test_every_sealed_column_is_known() -> None:
    columns = {
        f"{table.name}.{column.name}"
        for table in metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, LargeBinary) and "sealed" in column.name
    }
    assert {str(field) for field in SEALED} == columns


def test_what_was_swapped_between_two_rows_opens_in_neither(world: World, full: dict[str, Sealed]) -> None:
    for field in SEALED:
        sealed = full[str(field)]
        for which in (0, 1):
            assert sealed.open(world.vault, which)

        def swap(c: Connection, field: Field = field, rows: tuple[str, str] = sealed.rows) -> None:
            first, second = (c.execute(select(field.column).where(field.key == row)).scalar_one() for row in rows)
            c.execute(update(field.table).where(field.key == rows[0]).values({field.name: second}))
            c.execute(update(field.table).where(field.key == rows[1]).values({field.name: first}))

        world.store.write(swap)
        for which in (0, 1):
            with pytest.raises(Misconfigured, match="was altered or belongs to another row"):
                sealed.open(world.vault, which)


class Interrupted(Exception):
    """Somebody pressed Ctrl-C."""


def test_a_rewrap_that_was_interrupted_goes_on_and_then_needs_the_old_key_no_more(
    world: World, full: dict[str, Sealed]
) -> None:
    both, heard = Vault({1: OLD, 2: NEW}, os.urandom), list[str]()

    def stop(field: Field, moved: int) -> None:
        heard.append(str(field))
        if len(heard) == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        rewrap.rewrap(world.store, both, progress=stop)
    assert {key for counted in world.store.read(in_use).values() for key in counted} == {1, 2}
    rewrap.rewrap(world.store, both, progress=lambda field, moved: None)
    found = world.store.read(in_use)
    assert {key for counted in found.values() for key in counted} == {2}
    assert {str(field): counted[2] for field, counted in found.items()} == dict.fromkeys(full, 2)
    only_new = Vault({2: NEW}, os.urandom)
    assert all(sealed.open(only_new, which) for sealed in full.values() for which in (0, 1))
    assert rewrap.rewrap(world.store, both, progress=lambda field, moved: None) == 0


def test_a_value_whose_key_is_missing_is_named_and_the_rest_stays(world: World, full: dict[str, Sealed]) -> None:
    with pytest.raises(Misconfigured, match="needs vault key 1"):
        rewrap.rewrap(world.store, Vault({2: NEW}, os.urandom), progress=lambda field, moved: None)
    assert all(sealed.open(world.vault, 0) for sealed in full.values())


@MOSTLY_SQLITE
def test_more_than_one_chunk_is_moved(world: World) -> None:
    now, mill = world.clock(), replace(world.owner, id="mill")
    sealed = [
        seal_secret(world.vault, mill, id=f"secret-{n:04}", name=CLIENT_SECRET, secret=Secret("canary"), now=now)
        for n in range(2 * rewrap.CHUNK + 1)
    ]

    def store(c: Connection) -> None:
        add_connection(c, mill, now=now)
        for secret in sealed:
            add_secret(c, secret)

    world.store.write(store)
    moved: list[int] = []
    rewrap.rewrap(world.store, Vault({1: OLD, 2: NEW}, os.urandom), progress=lambda field, number: moved.append(number))
    assert sum(moved) == 2 * rewrap.CHUNK + 2  # the world has one of its own
    assert max(moved) == rewrap.CHUNK
