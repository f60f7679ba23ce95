"""Leases: the decision whether a step may open, and with which token (docs/explanation/how-a-step-works.md).

The rule: the job's `accepted` is newer than `revoked` of all five scopes, the grant's `consented` newer than `revoked`
of tenant, provider connection, user and account, none of the five is stopped, and the account is `active`.

A job accepted before the revocation is ruled out for good. A job accepted after it waits for a new consent. The caller
has taken the locks, as statements of their own; this module does the one read.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, literal, select

from identity.accounts.grants import ACCESS, Grant, grant_of, token_binding
from identity.accounts.scopes import (
    IS_WANTED,
    prohibition,
    remembered,
    scope_keys,
)
from identity.keys.vault import Vault
from identity.metrics import LEASES
from identity.model import (
    MINTED,
    AccountState,
    Leased,
    LeaseOutcome,
    LeaseRequest,
    NeedsConsent,
    NeedsRefresh,
    RuledOut,
    ScopeKind,
)
from identity.providers import PROFILES
from identity.providers.profile import MIN_TTL, Profile
from identity.secret import Secret
from identity.sql.columns import database_now
from identity.sql.prepared import Prepared
from identity.tables import accounts, grants, scopes

_ALWAYS = select(literal(1).label("one")).subquery("always")
_IS_ACCOUNT = and_(
    accounts.c.tenant_id == bindparam("tenant"),
    accounts.c.connection_id == bindparam("connection"),
    accounts.c.principal_id == bindparam("principal"),
)
# The account's columns, and those of each of its scopes that was ever revoked or stopped: at least one row.
_STATE = Prepared(
    select(
        accounts.c.id,
        accounts.c.provider,
        accounts.c.state,
        accounts.c.credential,
        grants,
        scopes.c.kind,
        scopes.c.key,
        scopes.c.revoked,
        scopes.c.stopped,
        database_now().label("now"),
    ).select_from(
        _ALWAYS.outerjoin(accounts, _IS_ACCOUNT)
        .outerjoin(grants, grants.c.account_id == accounts.c.id)
        .outerjoin(scopes, IS_WANTED)
    )
)
_NAMES = {Leased: "leased", NeedsRefresh: "needs_refresh", NeedsConsent: "needs_consent", RuledOut: "ruled_out"}


def examine(connection: Connection, request: LeaseRequest) -> LeaseOutcome:
    """Apply the rule, then check the state of the account and its token. Counts the outcome."""
    outcome = look(connection, request)
    LEASES.labels(_NAMES[type(outcome)]).inc()  # a repeated transaction counts again
    return outcome


def look(connection: Connection, request: LeaseRequest) -> LeaseOutcome:
    """Return what `examine` would, without counting it. Without the locks it is not binding."""
    job_scopes, key = request.scope_list, request.account_key
    named = {"tenant": key.tenant, "connection": key.connection, "principal": key.principal}
    rows = _STATE.run(connection, named | scope_keys(job_scopes)).all()
    found, row = remembered(job_scopes, rows), rows[0]
    if refusal := prohibition(found, request.accepted):
        return refusal
    if row.id is None:
        return NeedsConsent(account=None, state=AccountState.PENDING, missing_scopes=_sorted(request.scopes))
    state = AccountState(row.state)
    if state is not AccountState.ACTIVE or row.account_id is None:
        return NeedsConsent(account=row.id, state=state, missing_scopes=_sorted(request.scopes))
    grant = grant_of(row)
    of_grant = {scope: standing for scope, standing in found.items() if scope.kind is not ScopeKind.AGENT}
    if prohibition(of_grant, grant.consented):
        return NeedsConsent(account=row.id, state=AccountState.REVOKED, missing_scopes=_sorted(request.scopes))
    profile = PROFILES.get(row.provider)
    if missing := request.scopes - (profile.covered(grant.scopes) if profile else set(grant.scopes)):
        return NeedsConsent(account=row.id, state=state, missing_scopes=_sorted(missing))
    if grant.access_sealed is None or not _fresh(grant, request, profile, now=request.now or row.now):
        if grant.access_sealed is None and row.credential not in MINTED and grant.refresh_sealed is None:
            return NeedsConsent(account=row.id, state=AccountState.NEEDS_RECONNECT, missing_scopes=())
        return NeedsRefresh(account=row.id, generation=grant.generation)
    return Leased(
        account=row.id,
        generation=grant.generation,
        provider=row.provider,
        sealed_token=grant.access_sealed,
        token_type=grant.token_type,
        expires_at=grant.expires_at,
        consented=grant.consented,
        first_use=_first_use(row, grant),
    )


def open_token(vault: Vault, tenant: str, leased: Leased) -> Secret:
    """Open the token of a lease, after the commit. Raises Misconfigured."""
    binding = token_binding(tenant, leased.account, leased.provider, ACCESS, leased.generation)
    return vault.open(leased.sealed_token, binding)


def _fresh(grant: Grant, request: LeaseRequest, profile: Profile | None, *, now: datetime) -> bool:
    """True if the token remains usable long enough, and was not refused upstream.

    The required remainder is at most half of the token's life, or a short-lived token would never be fresh. A token
    that expires during the call is refused by the upstream, without effect.
    """
    if grant.generation <= request.after_generation:
        return False
    if grant.expires_at is None:
        return True
    rest = min(profile.min_ttl if profile else MIN_TTL, (grant.expires_at - grant.obtained_at) / 2)
    return now < grant.expires_at - (rest if request.refresh_early else timedelta())


def _first_use(row: Row[Any], grant: Grant) -> bool:
    """True if this is the first lease of a token that can be renewed: one write a generation."""
    renewable = grant.refresh_sealed is not None or row.credential in MINTED
    unused = row.used_at is None or row.used_at < grant.obtained_at
    return unused and renewable and grant.expires_at is not None


def _sorted(scopes: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(scopes))
