"""Deletion of a tenant: its credentials leave the ledger after they were withdrawn at their providers.

Rows that others may have to answer for stay: the audit, revocations with their receipts, and everything these name. The
data of jobs and deliveries goes when retention says so.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, Select, delete, func, select, update

from identity import audit
from identity.accounts.grants import EMPTIED
from identity.accounts.scopes import standings
from identity.audit import Act, AsWhom
from identity.capability.tables import audiences
from identity.connect_sessions.tables import connect_sessions
from identity.console.tables import console_roles
from identity.errors import BadInput
from identity.model import Scope, ScopeKind
from identity.refresh.late_answers import discard_for_good
from identity.refresh.tables import refresh_intents
from identity.sql.sequence import lock_exclusive
from identity.tables import accounts, aliases, connection_secrets, grants, installations, provider_connections, tenants
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawal import MOVES, SHREDDED, WithdrawalState


def at_providers(connection: Connection, tenant: str, state: WithdrawalState) -> int:
    """Return how many of the tenant's withdrawals at a provider are in that state."""
    of_tenant = withdrawals.c.account_id.in_(_accounts(tenant)) & (withdrawals.c.state == state)
    return int(connection.execute(select(func.count()).select_from(withdrawals).where(of_tenant)).scalar_one())


def revocations_of_stuck(connection: Connection, tenant: str) -> list[str]:
    """Return the revocations whose withdrawals of the tenant's credentials are stuck at a provider."""
    columns = withdrawals.c
    stuck = columns.account_id.in_(_accounts(tenant)) & (columns.state == WithdrawalState.STUCK)
    found = select(columns.revocation_id).where(stuck, columns.revocation_id.is_not(None)).distinct()
    return list(connection.execute(found.order_by(columns.revocation_id)).scalars())


def shred(connection: Connection, tenant: str, act: Act, *, besides: Mapping[str, int]) -> Mapping[str, int]:
    """Remove every credential of a revoked and stopped tenant from the ledger.

    Return how many rows of each kind it touched. The audit row also counts what the caller ended *besides*. A copy of
    the ledger, such as a backup, still holds the credentials (docs/decisions/0010). Raises BadInput if the tenant is
    open, because someone could still connect.
    """
    scope = Scope(kind=ScopeKind.TENANT, key=tenant)
    lock_exclusive(connection, scope)
    if not standings(connection, [scope])[scope].stopped:
        raise BadInput(f"{tenant} was opened meanwhile, so it is not deleted: say the same again")
    own = select(provider_connections.c.id).where(provider_connections.c.tenant_id == tenant)
    of_account = _accounts(tenant)
    # One statement each: the sealed columns are those of `identity.sealed.rewrap.SEALED`.
    statements = {
        "grants": update(grants).where(grants.c.account_id.in_(of_account)).values(**EMPTIED, keepalive_due=None),
        "refreshes": update(refresh_intents)
        .where(refresh_intents.c.account_id.in_(of_account), refresh_intents.c.answer_sealed.is_not(None))
        .values(answer_sealed=None),
        "withdrawals": update(withdrawals).where(withdrawals.c.account_id.in_(of_account)).values(SHREDDED),
        "stuck credentials, given up": update(withdrawals)
        .where(
            withdrawals.c.account_id.in_(of_account), withdrawals.c.state.in_(MOVES.sources(WithdrawalState.GIVEN_UP))
        )
        .values(state=WithdrawalState.GIVEN_UP, finished_at=act.now),
        "connection secrets": delete(connection_secrets).where(connection_secrets.c.connection_id.in_(own)),
        "connect links": delete(connect_sessions).where(connect_sessions.c.tenant_id == tenant),
        "capability audiences": update(audiences)
        .where(audiences.c.tenant_id == tenant, audiences.c.removed_at.is_(None))
        .values(removed_at=act.now),
        "console roles": delete(console_roles).where(console_roles.c.tenant_id == tenant),
        "aliases": delete(aliases).where(aliases.c.tenant_id == tenant),
        "installations": delete(installations).where(installations.c.tenant_id == tenant),
    }
    touched = {**{what: connection.execute(one).rowcount for what, one in statements.items()}, **besides}
    discard_for_good(connection, of_account, now=act.now)
    connection.execute(update(tenants).where(tenants.c.id == tenant).values(deleted_at=act.now))
    audit.record_act(connection, "tenant.deleted", AsWhom(tenant=tenant), act, outcome="deleted", detail=touched)
    return touched


def _accounts(tenant: str) -> Select[str]:
    return select(accounts.c.id).where(accounts.c.tenant_id == tenant)
