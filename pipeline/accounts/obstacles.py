"""Obstacles above an account that prevent its use: a stopped or revoked scope, a paused connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from identity.accounts.scopes import NEVER, Standing, all_standings, prohibition
from identity.connections.registry import paused_reasons
from identity.model import AccountKey, AccountState, Scope
from identity.withdrawals.awaiting import kept
from pipeline.batches import in_batches
from pipeline.ledger.clock import ledger_now
from pipeline.revocation.tables import is_of_any, revocations

_PAGE = 500  # accounts in one statement
_SCOPES = 200


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """The first obstacle above an account, from the tenant down."""

    reason: str
    scope: Scope | None  # the stopped or revoked scope; None: its provider connection is paused
    stopped: bool = False
    revoked: bool = False  # revoked after its consent, possibly in addition to a stop: only a new consent ends this


def obstacles(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[Obstacle | None]:
    """Return the obstacle of each account in *rows*, as `pipeline.views` reads them.

    An account that is not active has only a pause: its state says already why no step opens with it.
    """
    found: list[Obstacle | None] = []
    for page in in_batches(rows, _PAGE):
        standing = all_standings(connection, {scope for row in page for scope in AccountKey.of(row).scopes})
        paused = paused_reasons(connection, {row["connection_id"] for row in page})
        times = _times(connection, [scope for scope, one in standing.items() if one.revoked])
        found += [_first(row, standing, paused.get(row["connection_id"]), times) for row in page]
    return found


def _times(connection: Connection, scopes: Sequence[Scope]) -> Mapping[int, datetime]:
    """Return when the revocations of these scopes took effect, by ledger number."""
    columns = revocations.c
    wanted = [
        select(columns.number, columns.effective_at).where(is_of_any(page)) for page in in_batches(scopes, _SCOPES)
    ]
    return {row.number: row.effective_at for found in wanted for row in connection.execute(found)}


def unconfirmed(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, str]:
    """Return, by account in *rows*, a note that somebody consented and the product has yet to confirm it."""
    found: dict[str, str] = {}
    now = ledger_now(connection)
    for page in in_batches(rows, _PAGE):
        for one in kept(connection, [row["id"] for row in page]):
            if one.until <= now:  # expired, but kept by a hold
                continue
            found[one.account] = (
                "somebody consented, and it counts once the product that made the link confirms that it was its own "
                f"person, until {one.until:%Y-%m-%d %H:%M:%S} UTC"
            )
    return found


def _first(
    row: Mapping[str, Any], standing: Mapping[Scope, Standing], paused: str | None, times: Mapping[int, datetime]
) -> Obstacle | None:
    scopes = {scope: standing.get(scope, NEVER) for scope in AccountKey.of(row).scopes}
    consented = row["consented"] or 0
    if row["state"] == AccountState.ACTIVE and (ruled_out := prohibition(scopes, consented)):
        stands = scopes[ruled_out.scope]
        reason = ruled_out.reason
        if not stands.stopped and (at := times.get(stands.revoked)):
            reason = f"{ruled_out.scope} was revoked at {at:%Y-%m-%d %H:%M:%S} UTC, after this consent"
        return Obstacle(
            reason=reason,
            scope=ruled_out.scope,
            stopped=stands.stopped,
            revoked=prohibition(scopes, consented, or_stopped=False) is not None,
        )
    if paused is not None:
        return Obstacle(reason=f"its provider connection is paused: {paused}", scope=None)
    return None
