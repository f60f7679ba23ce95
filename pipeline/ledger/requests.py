"""What agents ask for by the API, accepted: each in one transaction with its idempotency key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from identity.accounts.states import Account, find_account
from identity.agents.api_keys import Caller, NoCaller, still_holds
from identity.audit import Act
from identity.errors import AswhomError, BadInput
from identity.model import AccountKey, Scope, ScopeKind, scopes_of_agent
from identity.sql.rows import insert_new
from identity.sql.sequence import lock_shared
from pipeline import revocation
from pipeline.ledger import tenant_views
from pipeline.ledger.paging import Record
from pipeline.model import Bell
from pipeline.revocation.narrowing import narrow_account
from pipeline.revocation.tables import revocations
from pipeline.tables import idempotency_keys

_BY_API = "api:"


class NotLetIn(AswhomError):
    """The key ended between the request's first look and its transaction."""

    def __init__(self, why: NoCaller) -> None:
        super().__init__(f"the key is {why}")
        self.why = why


class KeyReused(AswhomError):
    """An idempotency key came with another request than before."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What every request that makes something has in common; its id was made before the transaction."""

    caller: Caller
    id: str  # of what is to be made, or of the job that is to be changed
    idempotency_key: str | None
    request_hash: str
    now: datetime
    same: Callable[[Connection, str], bool] = lambda _, made: False  # whether that is this, written otherwise


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a request made, now or when the same key came first."""

    id: str
    repeated: bool
    bells: tuple[Bell, ...] = ()
    row: Record | None = None  # how it stands in that very transaction; None: it is forgotten


@dataclass(frozen=True, kw_only=True)
class Changed:
    """A job that was changed."""

    row: Record | None  # how it stands in that very transaction
    bells: tuple[Bell, ...] = ()


def job_before(connection: Connection, asked: Asked) -> Made | None:
    """The job that the idempotency key made, if this request came with it before. Raises KeyReused."""
    made = _made_before(connection, asked)
    return (
        None
        if made is None
        else Made(id=made, repeated=True, row=tenant_views.job(connection, asked.caller.tenant, made))
    )


def accept_revocation(connection: Connection, asked: Asked, scope: Scope, *, reason: str) -> Made:
    """Revoke, effective with this transaction. Raises NotLetIn or KeyReused."""

    def make() -> tuple[Bell, ...]:
        revocation.declare(
            connection,
            id=asked.id,
            scope=scope,
            tenant=asked.caller.tenant,
            source="api",
            by=api_operator(asked.caller),
            reason=reason,
            now=asked.now,
        )
        return ()

    return once(connection, asked, make, exists=revocations.c.id, look=tenant_views.revocation)


def accept_narrowing(
    connection: Connection, asked: Asked, scope: Scope, act: Act, *, keeps: tuple[str, ...], reason: str
) -> Made:
    """Narrow an account, effective with this transaction. Raises BadInput, NotLetIn or KeyReused."""
    account = find_account(connection, AccountKey.parse(scope.key)) if scope.kind is ScopeKind.ACCOUNT else None
    if account is None:
        raise BadInput(f"{scope} has no scopes that it could keep: only an account can be narrowed")

    def make(account: Account = account) -> tuple[Bell, ...]:
        narrow_account(connection, account, act, id=asked.id, keep=keeps, source="api", reason=reason)
        return ()

    return once(connection, asked, make, exists=revocations.c.id, look=tenant_views.revocation)


def change_job(connection: Connection, asked: Asked, change: Callable[[Connection], Sequence[Bell]]) -> Changed:
    """Have *change*, which says what to ring, done in the name of a key that lets its caller in yet.

    An idempotency key has it done once. Raises NotLetIn or KeyReused.
    """
    before = _by_key_before(connection, asked)
    keep_in(connection, asked.caller, asked.now)
    rung = change(connection) if before is None else ()
    row = tenant_views.job(connection, asked.caller.tenant, asked.id)
    return Changed(row=row, bells=tuple(rung))


def api_operator(caller: Caller) -> str:
    """How the audit and receipts name who asked by the API."""
    return f"{_BY_API}{caller.agent}:{caller.key}"


def key_of_operator(by: str) -> str | None:
    """The key by which *by* came, as `api_operator` has them; None: they came by no key."""
    return by.rpartition(":")[2] if by.startswith(_BY_API) else None


def let_in(connection: Connection, caller: Caller, now: datetime) -> None:
    """Look at the caller's key once more, in the transaction that acts on it. Raises NotLetIn."""
    holds = still_holds(connection, caller, now=now)
    if isinstance(holds, NoCaller):
        raise NotLetIn(holds)


def keep_in(connection: Connection, caller: Caller, now: datetime) -> None:
    """Look at the caller's key once more, and keep out what would end it until the transaction ends. Raises NotLetIn.

    What this transaction accepts has a lower number than any revocation it keeps out, so that revocation reaches it.
    """
    lock_shared(connection, scopes_of_agent(caller.tenant, caller.agent))
    let_in(connection, caller, now)


def once(
    connection: Connection,
    asked: Asked,
    make: Callable[[], tuple[Bell, ...]],
    *,
    exists: Any,
    look: Callable[[Connection, str, str], Record | None],
) -> Made:
    """What is made, and how it stands: a read of its own could fail when it is made already."""
    made = _made(connection, asked, make, exists=exists)
    return replace(made, row=look(connection, asked.caller.tenant, made.id))


def _made(connection: Connection, asked: Asked, make: Callable[[], tuple[Bell, ...]], *, exists: Any) -> Made:
    """Make it, unless the idempotency key, or a commit whose outcome was unknown, has made it before."""
    caller = asked.caller
    if connection.execute(select(exists).where(exists == asked.id)).first() is not None:
        return Made(id=asked.id, repeated=False)  # this very request, whose commit was not confirmed
    let_in(connection, caller, asked.now)
    made = made_by_key(connection, asked)
    if made != asked.id:
        return Made(id=made, repeated=True)
    return Made(id=asked.id, repeated=False, bells=make())


def made_by_key(connection: Connection, asked: Asked) -> str:
    """What the idempotency key stands for from now on: what is asked, or what it made before. Raises KeyReused."""
    return _by_key_before(connection, asked) or asked.id


def _by_key_before(connection: Connection, asked: Asked) -> str | None:
    """What the idempotency key made before; None: it stands for what is asked, from now on. Raises KeyReused."""
    caller = asked.caller
    if asked.idempotency_key is None:
        return None
    row = {
        "tenant_id": caller.tenant,
        "agent_id": caller.agent,
        "key": asked.idempotency_key,
        "request_hash": asked.request_hash,
        "made_id": asked.id,
        "made_at": asked.now,
    }
    while not insert_new(connection, idempotency_keys, row):
        if (made := _made_before(connection, asked)) is not None:
            return made
        # Housekeeping took the key, which was old, between the two statements: it is free now.
    return None


def _made_before(connection: Connection, asked: Asked) -> str | None:
    """What the idempotency key made, if it came before. Raises KeyReused."""
    caller = asked.caller
    row = connection.execute(
        select(idempotency_keys.c.request_hash, idempotency_keys.c.made_id).where(
            idempotency_keys.c.tenant_id == caller.tenant,
            idempotency_keys.c.agent_id == caller.agent,
            idempotency_keys.c.key == asked.idempotency_key,
        )
    ).one_or_none()
    if row is None:
        return None
    made: str = row.made_id
    if row.request_hash != asked.request_hash and not asked.same(connection, made):
        raise KeyReused(
            f"this idempotency key came with another request before, which made {made}: look at that first, and make a "
            "new key for a new request"
        )
    return made
