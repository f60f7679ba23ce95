"""Detects another installation that uses the same Redis under the same prefix.

Two such installations take each other's doorbells, which delays new jobs by half a minute, and obey each other's locks,
pauses and budgets. Each therefore sets a mark in Redis unless there is one, and its housekeeping renews it. The mark is
the id of its signing key, plus that of the act by which its ledger was marked as restored: otherwise the copy used in a
drill would take the mark of its original, whose Redis it most likely uses, for its own.

The private Valkey of `aswhom up` belongs to one data directory, so a process that starts takes the mark over there: a
ledger that was restored in place finds its own former mark.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from redis import Redis
from redis.exceptions import RedisError

from deploy.settings import Settings
from identity.audit.handovers import key_ids
from identity.errors import Misconfigured, Unavailable
from pipeline.desk.restored import marks as restored_marks
from pipeline.duties.reconcile import in_rhythm

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from sqlalchemy import Connection

    from pipeline.duties.housekeeping import Duty
    from pipeline.runtime import Runtime

log = logging.getLogger(__name__)


_MARK = "installation"
_KEPT = timedelta(minutes=10)  # after the last renewal, so that the mark of a removed installation soon expires


def open_redis(url: str) -> Redis:
    """Return a Redis client with short timeouts."""
    return Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3, decode_responses=True)


def marks(connection: Connection, key: Ed25519PublicKey) -> list[str]:
    """Return the installation's mark, and those from before its signing *key* was rotated."""
    restored = restored_marks(connection)
    return [f"{kid}.{restored[0].id}" if restored else kid for kid in key_ids(connection, key)]


def another(client: Redis, prefix: str, ours: Collection[str]) -> str | None:
    """Return the problem and its remedy if another installation's mark is there. Raise RedisError.

    *ours* are our current and former marks.
    """
    mark = prefix + _MARK
    found = client.get(mark)
    if not isinstance(found, str) or found in ours:
        return None
    return (
        f"another installation uses the same Redis under {prefix}, or the one that this is a restored copy of (its "
        f"mark is {found}): each takes the other's bells, and obeys its locks and pauses. Give this one a database or "
        f"an ASWHOM_KEY_PREFIX of its own; if the other is no more, wait ten minutes, or delete the key {mark} there"
    )


def tell_of_another(settings: Settings, runtime: Runtime) -> None:
    """Log another installation's mark when a process starts, and set our own if there is none.

    An unavailable Redis is reported by the parts that need it.
    """
    try:
        ours = _ours(runtime)
    except Unavailable:
        return
    for said in _kept(settings, ours, starts=True):
        log.error(said, extra={"action": "redis.shared"})


def keeping_the_mark(settings: Settings, runtime: Runtime) -> Duty:
    """Return the housekeeping duty that renews the mark, and fails visibly while another one is there."""
    ours: Sequence[str] = ()

    def keep() -> None:
        nonlocal ours
        ours = ours or _ours(runtime)  # constant: a new key or restore mark comes with a new process
        if said := _kept(settings, ours):
            raise Misconfigured(said[0])

    return in_rhythm(runtime.database, "redis-mark", keep)


def _ours(runtime: Runtime) -> list[str]:
    return runtime.database.read(lambda c: marks(c, runtime.signer.public_key()))


def _kept(settings: Settings, ours: Sequence[str], *, starts: bool = False) -> list[str]:
    """Set or renew the mark. Return the problems if another installation's mark is there.

    *starts* replaces any mark in the private Valkey. Later, another mark there is a process of another ledger.
    """
    found = []
    broker = settings.broker_redis()
    for url in dict.fromkeys(url for url in (broker, settings.redis()) if url is not None):
        takes_over = starts and settings.embedded and url == broker
        try:
            with open_redis(url) as client:
                client.set(settings.key_prefix + _MARK, ours[0], nx=not takes_over, ex=_KEPT)
                if said := another(client, settings.key_prefix, ours):
                    found.append(said)
                else:
                    client.expire(settings.key_prefix + _MARK, _KEPT)
        except RedisError:
            continue
    return found
