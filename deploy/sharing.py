"""Whether another installation uses the same Redis under the same prefix.

Two that do take each other's bells, so that jobs wait half a minute for a new one, and obey each other's locks, pauses
and budgets. So each leaves its mark there, unless one is there: the id of its signing key.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING

from redis import Redis
from redis.exceptions import RedisError

from deploy.settings import Settings
from identity.errors import Unavailable
from identity.handovers import key_ids

if TYPE_CHECKING:
    from pipeline.runtime import Runtime

log = logging.getLogger(__name__)


_MARK = "installation"


def open_redis(url: str) -> Redis:
    """A client that does not wait for long."""
    return Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3, decode_responses=True)


def another(client: Redis, prefix: str, ours: Collection[str]) -> str | None:
    """What is wrong, and what to do, where there is another's mark. Raises RedisError.

    *ours* are the ids of our signing keys, present and former.
    """
    mark = prefix + _MARK
    found = client.get(mark)
    if not isinstance(found, str) or found in ours:
        return None
    return (
        f"another installation uses the same Redis under {prefix} (its signing key is or was {found}): each takes the "
        "other's bells, and obeys its locks and pauses. Give this one a database or an ASWHOM_KEY_PREFIX of its own; "
        f"if the other is no more, delete the key {mark} there"
    )


def tell_of_another(settings: Settings, runtime: Runtime) -> None:
    """Log it at a process's start, which leaves the mark where there is none.

    A Redis that is away is told of by whoever needs it.
    """
    urls = dict.fromkeys(url for url in (settings.broker_redis(), settings.redis()) if url is not None)
    try:
        ours = runtime.database.read(lambda c: key_ids(c, runtime.signer.public_key()))
    except Unavailable:
        return
    for url in urls:
        try:
            with open_redis(url) as client:
                client.set(settings.key_prefix + _MARK, ours[0], nx=True)
                said = another(client, settings.key_prefix, ours)
        except RedisError:
            continue
        if said is not None:
            log.error(said, extra={"action": "redis.shared"})
