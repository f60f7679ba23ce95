"""Following signals: finds the affected accounts and moves each, in the transaction that accepts the signal.

The rules for one account: `pipeline.revocation.reaction`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from identity.connections.installations import remove_installation
from identity.connections.registry import get_connection
from identity.model import AccountKey
from identity.sql.sequence import checked_number, lock_exclusive
from pipeline.revocation.reaction import Became, ReceivedSignal, in_words, react
from pipeline.revocation.signal_targets import accounts_meant, unknown_people, unlisted_place
from pipeline.signal import Asks, Installation, Nobody, Signal

BY_PROVIDER = "provider:"  # prefix of `requested_by` of its revocations; the delivery's source follows


@dataclass(frozen=True, kw_only=True)
class Followed:
    """The effects of a signal, and the accounts it has yet to reach."""

    revocations: tuple[str, ...] = ()
    reason: str  # for the delivery's record
    became: Mapping[Became, int] = field(default_factory=dict)  # number of accounts by outcome
    left: tuple[AccountKey, ...] = ()
    advice: str = ""  # about a place that is listed for no tenant, or people without an account
    nobodys: bool = False  # it withdraws grants in a place listed for no tenant, or of people without an account
    strangers: bool = False  # and nobody has ever connected there, or not these people
    number: int = 0  # ledger number of the signal's acceptance, used for the remaining accounts


def follow(
    connection: Connection,
    through: str,
    received: ReceivedSignal,
    *,
    tenant: str | None = None,
    at_most: int | None = None,
) -> Followed:
    """Follow a signal from the sender of the provider connection *through*. Raises Unavailable.

    *tenant*: only this tenant's accounts. *at_most*: reach at most so many accounts, and leave the rest to the caller.
    """
    signal = received.signal
    if refusal := _other_client(connection, through, signal):
        return Followed(reason=refusal)
    meant = accounts_meant(connection, through, signal.whom, tenant=tenant)
    # Read first: anyone who starts to connect after this number is not affected. With a number behind the rows, every
    # account would seem to have connected again since.
    number = checked_number(connection)
    few = meant[:at_most]
    made, became = reach(connection, few, received, number=number, place=0)
    _forget_installations(connection, through, signal)
    left = tuple(meant[len(few) :])
    reason = said(became, signal) + (f"; {len(left)} account(s) to go" if left else "")
    unreached = unlisted_place(connection, through, signal)
    if unreached is None and not meant:
        unreached = unknown_people(connection, through, signal)
    advice = "" if unreached is None else unreached.says
    reason = "; ".join(filter(None, (reason, advice)))
    return Followed(
        revocations=made,
        reason=reason,
        became=became,
        left=left,
        advice=advice,
        nobodys=unreached is not None,
        strangers=unreached is not None and not unreached.seen,
        number=number,
    )


def reach(
    connection: Connection, keys: Sequence[AccountKey], received: ReceivedSignal, *, number: int, place: int
) -> tuple[tuple[str, ...], Counter[Became]]:
    """Apply a signal to these accounts; return its revocations, and the number of accounts by outcome.

    *number*: the ledger number of the signal's acceptance. *keys* are sorted, and *place* is the position of the first
    among all affected accounts.
    """
    made: list[str] = []
    became: Counter[Became] = Counter()
    for nth, key in enumerate(keys, start=place):
        of_account = replace(received, id=f"{received.id}.{nth}" if nth else received.id)
        # Locked separately: in one statement with the read, the snapshot would precede the wait for the lock.
        lock_exclusive(connection, key.scope)
        outcome = react(connection, key, of_account, number)
        became[outcome] += 1
        if outcome.declares:
            made.append(of_account.id)
    return tuple(made), became


def said(became: Mapping[Became, int] | Mapping[str, int], signal: Signal) -> str:
    """Return a summary of the signal's effects, for the delivery's record."""
    whys = [one.why for one in signal.whom if isinstance(one, Nobody)]
    counts = [f"{number} account(s) {in_words(outcome)}" for outcome, number in sorted(became.items())]
    return "; ".join(counts + whys) or "no account of this connection is meant"


def _other_client(connection: Connection, through: str, signal: Signal) -> str | None:
    if signal.client is None or signal.client == get_connection(connection, through).client_id:
        return None
    return "it names another client registration than this connection's"


def _forget_installations(connection: Connection, through: str, signal: Signal) -> None:
    """Forget revoked installations: GitHub gives a new installation a new id."""
    if signal.asks is Asks.REVOKE:
        for one in signal.whom:
            if isinstance(one, Installation):
                remove_installation(connection, owner=through, external_id=one.id)
