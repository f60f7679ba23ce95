"""API keys of agents: their holder, their rights, and their end.

A key is 256 random bits, so its plain SHA-256 is enough to recognise it and useless to a reader of the ledger. It
carries the ledger number at which it was issued: a later revocation of its tenant or agent ends it, as it ends a grant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from identity import audit
from identity.accounts.scopes import standings
from identity.agents.tables import api_keys
from identity.audit import Act, AsWhom
from identity.errors import BadInput, PolicyDenied
from identity.model import PrincipalKind, Scope, ScopeKind, scopes_of_agent
from identity.principals import ensure_agent, get_principal
from identity.secret import Secret
from identity.sql.prepared import Prepared
from identity.tables import agents, tenants

PREFIX = "awk_"  # recognisable to secret scanners

_KEYS = select(api_keys, agents.c.api_rate.label("agent_rate")).join(agents, agents.c.id == api_keys.c.agent_id)
_FIND = Prepared(_KEYS.where(api_keys.c.secret_sha256 == bindparam("digest")))
_FIND_AGAIN = Prepared(_KEYS.where(api_keys.c.id == bindparam("key")))


class Role(StrEnum):
    """The rights of a key; docs/api.md has the table."""

    AGENT = "agent"  # execute tools, see its own jobs, send people to connect
    PRODUCT = "product"  # see all of its tenant, send people to connect, and report which of them came back
    READER = "reader"  # see all of its tenant, change nothing
    ADMIN = "admin"  # everything above, and revoke


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The caller of the API: an agent of one tenant, by one key."""

    key: str
    tenant: str
    agent: str
    role: Role
    tools: tuple[str, ...] | None  # patterns; None: every tool
    users: tuple[str, ...] | None  # patterns of names; None: every user of its tenant
    made_by: str | None = None
    held_by: str | None = None  # the user named as the key's holder
    api_rate: int | None = None  # the key's own limit, in requests a minute
    agent_rate: int | None = None  # the limit that all keys of its agent share

    @property
    def people(self) -> tuple[str, ...]:
        """The people who may be behind the key."""
        return tuple(one for one in (self.made_by, self.held_by) if one is not None)

    def may_execute(self, tool: str) -> bool:
        """True if the key covers the tool of that name."""
        return self.tools is None or any(fnmatchcase(tool, pattern) for pattern in self.tools)

    def check_user(self, principal: str) -> None:
        """Raise PolicyDenied if the key is bound to users other than *principal*, for example `acme.ada`."""
        if not self.acts_as(principal):
            name = principal.removeprefix(f"{self.tenant}.")
            raise PolicyDenied(f"this key does not act as {name}: ask with a key that does")

    def acts_as(self, principal: str) -> bool:
        """True if `check_user` accepts *principal*."""
        name = principal.removeprefix(f"{self.tenant}.")
        return self.users is None or any(fnmatchcase(name, pattern) for pattern in self.users)


class NoCaller(StrEnum):
    """The reason why a key is refused."""

    UNKNOWN = "unknown"
    EXPIRED = "expired"
    REVOKED = "revoked"  # the key itself, or its tenant or agent after it was issued
    STOPPED = "stopped"  # its tenant or agent, until an admin opens it again


def new_key(token: str) -> Secret:
    """Return the key for *token*, 256 random bits in URL-safe base64."""
    return Secret(PREFIX + token)


@dataclass(frozen=True, kw_only=True)
class NewApiKey:
    """A key to add; its fields have the meanings of `Caller`'s."""

    id: str
    tenant: str
    agent: str
    role: Role
    tools: Sequence[str] | None
    users: Sequence[str] | None
    expires_at: datetime | None  # None: never
    held_by: str | None = None
    name: str = ""  # a note for people


def add_key(connection: Connection, secret: Secret, new: NewApiKey, *, by: str, now: datetime) -> None:
    """Store the digest of *secret*, and its agent if it is new. Raises BadInput."""
    tenant, agent = new.tenant, new.agent
    if new.users is not None and new.role not in (Role.AGENT, Role.PRODUCT):
        raise BadInput(
            f"users limit whom a key acts as and invites: a key of role {new.role} is of all of its tenant's"
        )
    if connection.execute(select(tenants.c.id).where(tenants.c.id == tenant)).first() is None:
        raise BadInput(f"there is no tenant {tenant}: `aswhom tenants list` shows them")
    if new.held_by is not None:
        _check_holder(connection, tenant, new.held_by)
    ensure_agent(connection, id=agent, tenant=tenant, name=agent, now=now)
    owner = connection.execute(select(agents.c.tenant_id).where(agents.c.id == agent)).scalar_one()
    if owner != tenant:
        raise BadInput(f"agent {agent} is {owner or 'the platform'}'s: give {tenant}'s own agent another name")
    number = audit.record_act(
        connection,
        "api_key.created",
        AsWhom(tenant=tenant, agent=agent),
        Act(audit_id=f"{new.id}.created", by=by, now=now),
        outcome="created",
        detail={"key": new.id, "role": str(new.role), "tools": _listed(new.tools)}
        | ({} if new.users is None else {"users": list(new.users)})
        | ({} if new.held_by is None else {"held_by": new.held_by}),
    )
    row = {
        "id": new.id,
        "tenant_id": tenant,
        "agent_id": agent,
        "role": new.role,
        "tools": _listed(new.tools),
        "users": _listed(new.users),
        "name": new.name,
        "secret_sha256": secret.fingerprint(),
        "issued": number,
        "made_by": by,
        "held_by": new.held_by,
        "created_at": now,
        "expires_at": new.expires_at,
    }
    connection.execute(insert(api_keys), row)


def _listed(patterns: Sequence[str] | None) -> list[str] | None:
    return None if patterns is None else list(patterns)


def _check_holder(connection: Connection, tenant: str, held_by: str) -> None:
    holder = get_principal(connection, held_by)
    if holder is None or holder.tenant != tenant or holder.kind is not PrincipalKind.USER:
        raise BadInput(f"{tenant} has no user {held_by}, who could hold a key: `aswhom users list {tenant}`")


def holder_of(connection: Connection, key: str) -> str | None:
    """Return the user named as the holder of the key of that id; None if none is named, or the key was deleted."""
    held = connection.execute(select(api_keys.c.held_by).where(api_keys.c.id == key)).scalar_one_or_none()
    return None if held is None else str(held)


def people_behind(connection: Connection, key: str) -> tuple[str, ...]:
    """Return the maker and the holder of the key of that id; empty if it was deleted."""
    row = connection.execute(select(api_keys.c.made_by, api_keys.c.held_by).where(api_keys.c.id == key)).one_or_none()
    return tuple(one for one in row or () if one is not None)


def find_caller(connection: Connection, secret: Secret, *, now: datetime) -> Caller | NoCaller:
    """Return the caller who holds *secret*, or why it is refused."""
    return _caller(connection, _FIND.run(connection, {"digest": secret.fingerprint()}).one_or_none(), now)


def find_again(connection: Connection, key: str, *, now: datetime) -> Caller | NoCaller:
    """Return the caller who holds the key of that id, or why it is refused."""
    return _caller(connection, _FIND_AGAIN.run(connection, {"key": key}).one_or_none(), now)


def still_holds(connection: Connection, caller: Caller, *, now: datetime) -> Caller | NoCaller:
    """Return the present caller of *caller*'s key, looked up again in the transaction that acts on it."""
    return find_again(connection, caller.key, now=now)


def revoke_key(connection: Connection, id: str, *, by: str, now: datetime) -> bool:
    """End a key's life; False if there is none, or it had ended. Work already accepted from it continues."""
    ended = update(api_keys).where(api_keys.c.id == id, api_keys.c.revoked_at.is_(None)).values(revoked_at=now)
    row = connection.execute(ended.returning(api_keys.c.tenant_id, api_keys.c.agent_id)).one_or_none()
    if row is None:
        return False
    audit.record_act(
        connection,
        "api_key.revoked",
        AsWhom(tenant=row.tenant_id, agent=row.agent_id),
        Act(audit_id=f"{id}.revoked", by=by, now=now),
        outcome="revoked",
        detail={"key": id},
    )
    return True


def executors(connection: Connection, tenant: str, *, now: datetime) -> list[Caller]:
    """Return the callers that may execute tools for a tenant at present."""
    rows = connection.execute(
        _KEYS.where(
            api_keys.c.tenant_id == tenant,
            api_keys.c.role.in_((Role.AGENT, Role.ADMIN)),
            api_keys.c.revoked_at.is_(None),
        )
    )
    found = (_caller(connection, row, now) for row in rows.all())
    return [caller for caller in found if isinstance(caller, Caller)]


def keys_under(connection: Connection, scope: Scope, *, now: datetime) -> tuple[str, ...]:
    """Return the ids of the keys that a revocation of *scope*, a tenant or agent, would end."""
    owner = {ScopeKind.TENANT: api_keys.c.tenant_id, ScopeKind.AGENT: api_keys.c.agent_id}.get(scope.kind)
    if owner is None:
        return ()
    rows = connection.execute(_KEYS.where(owner == scope.key).order_by(api_keys.c.id)).all()
    ended = (NoCaller.REVOKED, NoCaller.EXPIRED)
    return tuple(row.id for row in rows if _caller(connection, row, now) not in ended)


def _caller(connection: Connection, row: Row[tuple[object, ...]] | None, now: datetime) -> Caller | NoCaller:
    if row is None:
        return NoCaller.UNKNOWN
    if row.revoked_at is not None:
        return NoCaller.REVOKED
    if row.expires_at is not None and row.expires_at <= now:
        return NoCaller.EXPIRED
    standing = standings(connection, scopes_of_agent(row.tenant_id, row.agent_id)).values()
    if any(one.revoked >= row.issued for one in standing):
        return NoCaller.REVOKED
    if any(one.stopped for one in standing):
        return NoCaller.STOPPED
    return Caller(
        key=row.id,
        tenant=row.tenant_id,
        agent=row.agent_id,
        role=Role(row.role),
        tools=None if row.tools is None else tuple(row.tools),
        users=None if row.users is None else tuple(row.users),
        made_by=row.made_by,
        held_by=row.held_by,
        api_rate=row.api_rate,
        agent_rate=row.agent_rate,
    )
