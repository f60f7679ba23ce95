"""What a provider says of people, and that it is followed."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

from pipeline.revocation.reaction import ReceivedSignal
from pipeline.revocation.signals import Followed, follow
from pipeline.signal import Asks, People, Signal, Whom
from tests.ledger.house import House


def signal(asks: Asks, *whom: Whom, at: datetime | None = None, **more: Any) -> Signal:
    return Signal(source="test", asks=asks, whom=whom, reason="told so", happened_at=at, **more)


def say(house: House, said: Signal, *, seen: bool = False) -> Followed:
    received = ReceivedSignal(
        signal=said,
        id=house.ids("rev"),
        by="provider:test",
        signal_id="del_test",
        seen=seen,
        now=datetime.now(UTC),
    )
    return house.database.write(partial(follow, through="gh", received=received))


def person(*ids: str) -> People:
    return People(ids=frozenset(ids or {"1001"}))
