"""Fifty processes that want one new token at once: forks of one preloaded parent, each opening its own everything.

Called as a program with a JSON document: database, redis, account, generation, processes. Prints a line a child.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

import redis

from identity.errors import Unavailable
from identity.http.client import Client
from identity.ids import Ids
from identity.keys.vault import Vault
from identity.refresh.lock import RefreshLock
from pipeline.db.database import DatabaseSettings, open_database
from tests.identity.coordinators import BUDGET, put_together
from tests.identity.peer import PROFILES
from tests.loopback import LOOPBACK


def refresh(asked: dict[str, Any], gate: int) -> str:
    """What one child gets; it waits at the gate until all are there."""
    database = open_database(DatabaseSettings(url=asked["database"], threads=2))
    client = redis.Redis.from_url(asked["redis"]) if asked["redis"] else None
    ids = Ids()
    coordinator = put_together(
        database,
        Vault({1: bytes(32)}, os.urandom),
        Client(policy=LOOPBACK, pool_size=2),
        RefreshLock(client, ttl=BUDGET.lock_ttl, token=lambda: secrets.token_hex(8), prefix="fifty:"),
        PROFILES,
        clock=lambda: datetime.now(UTC),
        ids=lambda: ids("ref"),
        budget=BUDGET,
    )
    os.read(gate, 1)  # ends for everybody at once, when the parent closes the other side
    for _ in range(9):
        try:
            return str(coordinator.refresh(asked["account"], after_generation=asked["generation"]))
        except Unavailable:  # a crowd before SQLite's one gate: a worker's job comes again, too
            continue
    return str(coordinator.refresh(asked["account"], after_generation=asked["generation"]))


def main() -> None:
    asked = json.loads(sys.argv[1])
    gate, opens = os.pipe()
    children = []
    for _ in range(asked["processes"]):
        child = os.fork()
        if child == 0:
            os.close(opens)
            code = 1
            try:
                os.write(1, f"{refresh(asked, gate)}\n".encode())
                code = 0
            finally:
                if code:  # or the parent would not hear of it
                    traceback.print_exc()
                os._exit(code)
        children.append(child)
    os.close(opens)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))


if __name__ == "__main__":
    main()
