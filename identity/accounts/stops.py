"""Stops: an admin closes a tenant, user, provider connection or agent for a while, and opens it again.

A stop is not a revocation: no number moves, so existing consents work again once the scope is open.
"""

from __future__ import annotations

from sqlalchemy import Connection

from identity import audit
from identity.accounts.scopes import remember_stop, standings
from identity.audit import Act, AsWhom
from identity.model import Scope, ScopeKind
from identity.sql.sequence import lock_exclusive


def set_stopped(connection: Connection, scope: Scope, act: Act, *, stopped: bool, tenant: str | None) -> bool:
    """Stop *scope*, or open it again; the next opening of a step after the commit sees it. False if nothing changed.

    *tenant* is the tenant that owns the scope, None for the platform's.
    """
    lock_exclusive(connection, scope)
    if standings(connection, [scope])[scope].stopped is stopped:
        return False
    remember_stop(connection, scope, stopped=stopped)
    done = "stopped" if stopped else "opened"
    agent, user = (scope.key if scope.kind is kind else None for kind in (ScopeKind.AGENT, ScopeKind.USER))
    whom = AsWhom(tenant=tenant, agent=agent, on_behalf_of=user)
    audit.record_act(connection, f"scope.{done}", whom, act, outcome=done, detail={"scope": str(scope)})
    return True
