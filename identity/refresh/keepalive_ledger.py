"""Keep-alive in the ledger: finding due grants by index, claiming them, and scheduling their next look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, select, update

from identity.accounts.scopes import NEVER, Standing, all_standings, prohibition
from identity.model import AccountKey, AccountState, Credential
from identity.refresh.keepalive_plan import IDLE, IN_USE, Tended
from identity.sql.prepared import Prepared
from identity.tables import accounts, grants, provider_connections
from identity.token_endpoint.gate import Endpoint


class NotNow(StrEnum):
    """The reason why a due grant must not be refreshed."""

    OVER = "over"  # revoked, or its account is not active: only a consent reactivates it
    STOPPED = "stopped"  # until an admin opens the scope again
    PAUSED = "paused"  # until an operator has fixed the provider connection


@dataclass(frozen=True, kw_only=True)
class Due:
    """A due grant, claimed until *claimed_until*."""

    key: AccountKey
    provider: str
    endpoint: Endpoint
    config: Mapping[str, str]  # of the provider connection
    generation: int
    tended: Tended
    failures: int
    due: datetime
    claimed_until: datetime
    not_now: NotNow | None

    @property
    def account(self) -> str:
        return self.tended.account


@dataclass(frozen=True, kw_only=True)
class Next:
    """The next look at a claimed grant. With *due* None there is none until its credentials change."""

    due: datetime | None
    rank: int = IDLE
    failures: int = 0
    error: str | None = None


# Hosts share the due grants; none waits for another's claim.
_CLAIMABLE = Prepared(
    select(
        grants.c.account_id,
        grants.c.generation,
        grants.c.consented,
        grants.c.obtained_at,
        grants.c.expires_at,
        grants.c.used_at,
        grants.c.keepalive_due,
        grants.c.keepalive_failures,
        grants.c.refresh_sealed.is_not(None).label("renewable"),
        accounts.c.tenant_id,
        accounts.c.connection_id,
        accounts.c.principal_id,
        accounts.c.provider,
        accounts.c.credential,
        accounts.c.state,
        provider_connections.c.api_url,
        provider_connections.c.token_url,
        provider_connections.c.config,
        provider_connections.c.paused_reason,
    )
    .join(accounts, accounts.c.id == grants.c.account_id)
    .join(provider_connections, provider_connections.c.id == accounts.c.connection_id)
    .where(grants.c.keepalive_rank == bindparam("of_rank"), grants.c.keepalive_due <= bindparam("now"))
    .order_by(grants.c.keepalive_due)
    .limit(bindparam("most"))
    .with_for_update(of=grants, skip_locked=True)
)
_CLAIM = (
    update(grants)
    .where(grants.c.account_id.in_(bindparam("claimed", expanding=True)))
    .values(keepalive_due=bindparam("until"))
)
# Only while the claim stands: a consent, rotation, use or end of the account sets another time.
_PUT_BACK = (
    update(grants)
    .where(grants.c.account_id == bindparam("account"), grants.c.keepalive_due == bindparam("until"))
    .values(
        keepalive_due=bindparam("next_due"),
        keepalive_rank=bindparam("rank"),
        keepalive_failures=bindparam("failures"),
        keepalive_error=bindparam("error"),
    )
)


def claim(connection: Connection, *, now: datetime, until: datetime, limit: int) -> list[Due]:
    """Claim up to *limit* due grants until *until*: those in use first, then the oldest first.

    O(limit), however many grants there are.
    """
    rows = _claimable(connection, now=now, limit=limit)
    if not rows:
        return []
    connection.execute(_CLAIM, {"claimed": [row.account_id for row in rows], "until": until})
    keys = [AccountKey.of(row) for row in rows]
    found = all_standings(connection, {scope for key in keys for scope in key.scopes})
    return [_due(row, key, found, until) for row, key in zip(rows, keys, strict=True)]


def put_back(connection: Connection, claimed: Iterable[tuple[Due, Next]]) -> None:
    """Store when each claimed grant is looked at next."""
    rows = [
        {
            "account": due.account,
            "until": due.claimed_until,
            "next_due": then.due,
            "rank": then.rank,
            "failures": then.failures,
            "error": then.error,
        }
        for due, then in sorted(claimed, key=lambda pair: pair[0].account)  # one order on all hosts: no deadlock
    ]
    if rows:
        connection.execute(_PUT_BACK, rows)


def behind(connection: Connection, *, now: datetime) -> tuple[int, datetime | None]:
    """Return how many grants are due, and since when the oldest is. Reads only the index."""
    counted = select(func.count(), func.min(grants.c.keepalive_due)).where(grants.c.keepalive_due <= now)
    total, oldest = 0, None
    for each in (IN_USE, IDLE):
        number, first = connection.execute(counted.where(grants.c.keepalive_rank == each)).one()
        total += number
        oldest = min(filter(None, (oldest, first)), default=None)
    return total, oldest


def _claimable(connection: Connection, *, now: datetime, limit: int) -> list[Row[Any]]:
    rows: list[Row[Any]] = []
    for rank in (IN_USE, IDLE):
        if len(rows) < limit:
            rows += _CLAIMABLE.run(connection, {"of_rank": rank, "now": now, "most": limit - len(rows)})
    return rows


def _due(row: Row[Any], key: AccountKey, found: Mapping[Any, Standing], until: datetime) -> Due:
    credential = Credential(row.credential)
    return Due(
        key=key,
        provider=row.provider,
        endpoint=Endpoint.among(key.connection, credential, api_url=row.api_url, token_url=row.token_url),
        config=row.config,
        generation=row.generation,
        tended=Tended(
            account=row.account_id,
            credential=credential,
            renewable=bool(row.renewable),
            obtained_at=row.obtained_at,
            expires_at=row.expires_at,
            used_at=row.used_at,
        ),
        failures=row.keepalive_failures,
        due=row.keepalive_due,
        claimed_until=until,
        not_now=_not_now(row, {scope: found.get(scope, NEVER) for scope in key.scopes}),
    )


def _not_now(row: Row[Any], standings: dict[Any, Standing]) -> NotNow | None:
    """Apply the rule for grants, as the opening of a step does. A revocation is final, a stop is not."""
    if row.state != AccountState.ACTIVE or prohibition(standings, row.consented, or_stopped=False):
        return NotNow.OVER
    if prohibition(standings, row.consented):
        return NotNow.STOPPED
    return NotNow.PAUSED if row.paused_reason is not None else None


def fair(due: Sequence[Due]) -> list[Due]:
    """Order round-robin over provider connections, and over tenants within each, keeping each tenant's order."""
    lanes: dict[str, dict[str, list[Due]]] = {}
    for one in due:
        lanes.setdefault(one.key.connection, {}).setdefault(one.key.tenant, []).append(one)
    return _in_turns([_in_turns(list(tenants.values())) for tenants in lanes.values()])


def _in_turns(queues: Sequence[Sequence[Due]]) -> list[Due]:
    longest = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
