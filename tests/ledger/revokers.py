"""A revoker that asks no provider: what the tests of all else that a revocation does want."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import Connection

from identity.crash_points import none_reached
from identity.ids import Ids
from identity.keys.signing import Signer
from identity.sql.store import Store
from pipeline.authoring.registry import Registry
from pipeline.revocation.receipt_content import ProviderSide, ReadProviderSide
from pipeline.revoker.revoker import Revoker


def nothing_to_say(_connection: Connection, _revocation: str) -> ProviderSide:
    """No provider is asked here."""
    return ProviderSide()


def quiet_revoker(
    store: Store,
    signer: Signer,
    workflows: Registry | None = None,
    *,
    ids: Ids | None = None,
    provider_side: ReadProviderSide = nothing_to_say,
    withdraw: Callable[[str], bool] = lambda _: True,
    inquire: Callable[[str], bool] = lambda _: True,
    stopping: Callable[[], bool] = lambda: False,
    reached: Callable[[str], None] = none_reached,
    monotonic: Callable[[], float] = time.monotonic,
) -> Revoker:
    """It asks only by what a test hands it."""
    return Revoker(
        store,
        signer,
        workflows or Registry(()),
        ahead=store,
        ids=ids or Ids(),
        provider_side=provider_side,
        withdraw=withdraw,
        inquire=inquire,
        stopping=stopping,
        reached=reached,
        monotonic=monotonic,
    )
