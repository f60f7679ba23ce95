"""Requests of agents by the API, each accepted in one transaction with its idempotency key."""

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
from identity.tenants import Tenants
from pipeline.ledger.paging import Record
from pipeline.model import Bell
from pipeline.operators import api_operator
from pipeline.revocation import declaration
from pipeline.revocation.narrowing import narrow_account
from pipeline.revocation.tables import revocations
from pipeline.tables import idempotency_keys
from pipeline.views import tenant_views


class NotLetIn(AswhomError):
    """The key ended between the request's first check and its transaction."""

    def __init__(self, why: NoCaller) -> None:
        super().__init__(f"the key is {why}")
        self.why = why


class KeyReused(AswhomError):
    """An idempotency key came with a different request than before."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The common part of every request that creates something; its id was made before the transaction."""

    caller: Caller
    id: str  # of the object to create, or of the job to change
    idempotency_key: str | None
    request_hash: str
    now: datetime
    # whether the object already made matches this request, spelled differently
    same: Callable[[Connection, str], bool] = lambda _, made: False


@dataclass(frozen=True, kw_only=True)
class Made:
    """The object a request created, now or when the same key came first."""

    id: str
    repeated: bool
    bells: tuple[Bell, ...] = ()
    row: Record | None = None  # its row in this very transaction; None: already removed


@dataclass(frozen=True, kw_only=True)
class Changed:
    """A job that was changed."""

    row: Record | None  # its row in this very transaction
    bells: tuple[Bell, ...] = ()


def job_before(connection: Connection, asked: Asked) -> Made | None:
    """Return the job that the idempotency key made earlier, if any. Raises KeyReused."""
    made = _made_before(connection, asked)
    return (
        None
        if made is None
        else Made(id=made, repeated=True, row=tenant_views.job(connection, Tenants.of(asked.caller.tenant), made))
    )


def accept_revocation(connection: Connection, asked: Asked, scope: Scope, *, reason: str) -> Made:
    """Revoke, effective with this transaction. Raises NotLetIn or KeyReused."""

    def make() -> tuple[Bell, ...]:
        caller = asked.caller
        cause = declaration.Cause(source="api", by=api_operator(caller), reason=reason, barred=caller.people)
        declaration.declare(connection, scope, cause, id=asked.id, tenant=caller.tenant, now=asked.now)
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
    """Run *change*, which returns the bells to ring, if the caller's key still holds.

    With an idempotency key it runs once. Raises NotLetIn or KeyReused.
    """
    before = _by_key_before(connection, asked)
    keep_in(connection, asked.caller, asked.now)
    rung = change(connection) if before is None else ()
    row = tenant_views.job(connection, Tenants.of(asked.caller.tenant), asked.id)
    return Changed(row=row, bells=tuple(rung))


def let_in(connection: Connection, caller: Caller, now: datetime) -> None:
    """Check the caller's key again, in the transaction that acts on it. Raises NotLetIn."""
    holds = still_holds(connection, caller, now=now)
    if isinstance(holds, NoCaller):
        raise NotLetIn(holds)


def keep_in(connection: Connection, caller: Caller, now: datetime) -> None:
    """Check the caller's key again, and keep it valid until the transaction ends. Raises NotLetIn.

    A revocation that waits for this transaction gets a higher number than the work accepted here, and reaches it.
    """
    lock_shared(connection, scopes_of_agent(caller.tenant, caller.agent))
    let_in(connection, caller, now)


def once(
    connection: Connection,
    asked: Asked,
    make: Callable[[], tuple[Bell, ...]],
    *,
    exists: Any,
    look: Callable[[Connection, Tenants, str], Record | None],
) -> Made:
    """Make the object once. Return it with its row, read in this transaction because a later read could fail."""
    made = _made(connection, asked, make, exists=exists)
    return replace(made, row=look(connection, Tenants.of(asked.caller.tenant), made.id))


def _made(connection: Connection, asked: Asked, make: Callable[[], tuple[Bell, ...]], *, exists: Any) -> Made:
    """Make it, unless the idempotency key, or an earlier try with an unknown commit, has made it."""
    caller = asked.caller
    if connection.execute(select(exists).where(exists == asked.id)).first() is not None:
        return Made(id=asked.id, repeated=False)  # this very request, whose commit was not confirmed
    let_in(connection, caller, asked.now)
    made = made_by_key(connection, asked)
    if made != asked.id:
        return Made(id=made, repeated=True)
    return Made(id=asked.id, repeated=False, bells=make())


def made_by_key(connection: Connection, asked: Asked) -> str:
    """Return the id the idempotency key stands for: this request's, or the one made before. Raises KeyReused."""
    return _by_key_before(connection, asked) or asked.id


def _by_key_before(connection: Connection, asked: Asked) -> str | None:
    """Return what the idempotency key made before. None: it is now taken by this request. Raises KeyReused."""
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
        # Housekeeping removed the old key between the two statements, so it is free now.
    return None


def _made_before(connection: Connection, asked: Asked) -> str | None:
    """Return what the idempotency key made before, if anything. Raises KeyReused."""
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
