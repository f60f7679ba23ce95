"""Connected accounts: their rows, their states, and the function that moves them.

All functions run inside the caller's transaction. Principals, provider connections and grants have their own modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, select, update

from identity.errors import Misconfigured
from identity.model import AccountKey, AccountState, Credential, ReconnectCause
from identity.sql.columns import is_among
from identity.sql.prepared import Prepared
from identity.sql.rows import Part, insert_new
from identity.sql.state_machine import IllegalMove, Moves
from identity.tables import accounts, grants

MOVES: Moves[AccountState] = Moves(
    "account",
    {
        AccountState.PENDING: frozenset({AccountState.ACTIVE, AccountState.REVOKED}),
        AccountState.ACTIVE: frozenset({AccountState.NEEDS_RECONNECT, AccountState.SUSPENDED, AccountState.REVOKED}),
        # ACTIVE: by a consent, the late answer of an abandoned refresh, or an operator where a person was wanted.
        AccountState.NEEDS_RECONNECT: frozenset({AccountState.ACTIVE, AccountState.SUSPENDED, AccountState.REVOKED}),
        # NEEDS_RECONNECT: the suspension ended, but the grant had died before.
        AccountState.SUSPENDED: frozenset({AccountState.ACTIVE, AccountState.NEEDS_RECONNECT, AccountState.REVOKED}),
        AccountState.REVOKED: frozenset({AccountState.ACTIVE}),
    },
)
_BY_ID = Prepared(select(accounts).where(accounts.c.id == bindparam("account")))
_BY_KEY = Prepared(
    select(accounts).where(
        accounts.c.tenant_id == bindparam("tenant"),
        accounts.c.connection_id == bindparam("through"),
        accounts.c.principal_id == bindparam("principal"),
    )
)
_KEEP_ALIVE = Prepared(
    update(grants).where(grants.c.account_id == bindparam("account")).values(keepalive_due=bindparam("due"))
)


@dataclass(frozen=True, kw_only=True)
class Account:
    """A connected account, without its credentials."""

    id: str
    key: AccountKey
    provider: str
    credential: Credential
    state: AccountState
    reason: str | None  # why it is not active, for people
    reconnect_cause: ReconnectCause | None = None  # the machine-readable cause, if it needs its person
    external_id: str | None
    external_login: str | None
    resources: tuple[str, ...] | None = None  # the resources that its tokens are limited to; None: no limit
    suspension_said_at: datetime | None = None  # the provider's time of its newest suspension signal
    permissions_said_at: datetime | None = None


def get_account(connection: Connection, account: str) -> Account:
    """Return the account of that id. Raises Misconfigured."""
    row = _BY_ID.run(connection, {"account": account}).one_or_none()
    if row is None:
        raise Misconfigured(f"there is no account {account}")
    return account_of(row)


def find_account(connection: Connection, key: AccountKey) -> Account | None:
    """Return the account of that tenant, provider connection and principal, if it has a row."""
    named = {"tenant": key.tenant, "through": key.connection, "principal": key.principal}
    row = _BY_KEY.run(connection, named).one_or_none()
    return None if row is None else account_of(row)


def is_account(name: str) -> ColumnElement[bool]:
    """Match an account by its id, or by its scope's name, `tenant/connection/principal`."""
    columns = accounts.c
    match name.split("/"):
        case [tenant, through, principal]:
            return and_(
                columns.tenant_id == tenant, columns.connection_id == through, columns.principal_id == principal
            )
    return columns.id == name


def ensure_account(
    connection: Connection,
    key: AccountKey,
    *,
    id: str,
    provider: str,
    credential: Credential,
    now: datetime,
) -> Account:
    """Return the account; insert it as `pending`, under *id*, if it is missing."""
    row = {
        "id": id,
        "tenant_id": key.tenant,
        "connection_id": key.connection,
        "principal_id": key.principal,
        "provider": provider,
        "credential": credential,
        "state": AccountState.PENDING,
        "created_at": now,
        "updated_at": now,
    }
    insert_new(connection, accounts, row)
    found = find_account(connection, key)
    if found is None:
        raise Misconfigured(f"the id {id} already names another account than {key}")
    return found


def pending_account(
    connection: Connection,
    key: AccountKey,
    *,
    id: str,
    provider: str,
    now: datetime,
) -> str:
    """Return the id of the account that a job waits for; parking and consent both lock its row."""
    credential = Credential.AUTHORIZATION_CODE
    return ensure_account(connection, key, id=id, provider=provider, credential=credential, now=now).id


def move_account(
    connection: Connection,
    account: str,
    *,
    to: AccountState,
    reason: str | None,
    cause: ReconnectCause | None = None,
    now: datetime,
) -> bool:
    """Move an account; False if it is there already. *cause* is for one that needs its person. Raises IllegalMove."""
    if _move(to).run(connection, {"account": account, "why": reason, "cause": cause, "now": now}).rowcount == 1:
        _keep_alive(connection, account, now if to is AccountState.ACTIVE else None)
        return True
    state = get_account(connection, account).state
    if state is not to:
        raise IllegalMove(f"an account does not move from {state} to {to}: {account}")
    return False


def park(connection: Connection, account: str, reason: str, *, cause: ReconnectCause, now: datetime) -> bool:
    """Require a person to reconnect an active account. False if it is not active; its state then stays."""
    if get_account(connection, account).state is not AccountState.ACTIVE:
        return False
    return move_account(connection, account, to=AccountState.NEEDS_RECONNECT, reason=reason, cause=cause, now=now)


@cache
def _move(to: AccountState) -> Prepared:
    allowed = is_among(accounts.c.state, *MOVES.sources(to))
    moved = update(accounts).where(accounts.c.id == bindparam("account"), allowed)
    moved = moved.values(state=to, reason=bindparam("why"), reconnect_cause=bindparam("cause"))
    return Prepared(moved.values(updated_at=bindparam("now")))


def note_said(
    connection: Connection, account: str, *, suspension: datetime | None = None, permissions: datetime | None = None
) -> None:
    """Store the provider's own time of its signal, so that an older signal is recognised as such."""
    said = {"suspension_said_at": suspension, "permissions_said_at": permissions}
    values = {column: at for column, at in said.items() if at is not None}
    if values:
        connection.execute(update(accounts).where(accounts.c.id == account).values(values))


def _keep_alive(connection: Connection, account: str, due: datetime | None) -> None:
    """Keep only active accounts' grants alive; one that has become active again is checked first."""
    _KEEP_ALIVE.run(connection, {"account": account, "due": due})


def account_of(row: Row[tuple[object, ...]] | Part) -> Account:
    """Build the account from a row of `accounts`."""
    return Account(
        id=row.id,
        key=AccountKey.of(row),
        provider=row.provider,
        credential=Credential(row.credential),
        state=AccountState(row.state),
        reason=row.reason,
        reconnect_cause=None if row.reconnect_cause is None else ReconnectCause(row.reconnect_cause),
        external_id=row.external_id,
        external_login=row.external_login,
        resources=None if row.resources is None else tuple(row.resources),
        suspension_said_at=row.suspension_said_at,
        permissions_said_at=row.permissions_said_at,
    )
