"""Processes that refresh: forks of one preloaded parent, each opening its own everything, told what to do line by line.

Called as a program with a JSON document: database, redis (or null), processes. Then a line of JSON on its input is one
order, and a line on its output the answer:

- `{"account": …, "generation": 1}`: a child refreshes; `"kill": point` or `"stop": point` is SIGKILL or SIGSTOP there;
- `{"continue": pid}`: SIGCONT for a stopped child, and how it ended;
- `{"rounds": 100, "account": …}`: all processes at once, so many times, each time after the row was made to expire.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from sqlalchemy import update

from identity.accounts.grants import get_grant
from identity.errors import AswhomError, Unavailable
from identity.http.client import Client
from identity.ids import Ids
from identity.keys.vault import Vault
from identity.refresh.lock import RefreshLock
from identity.tables import grants
from identity.token_endpoint.budget import RefreshBudget
from identity.token_endpoint.gate import Gate
from pipeline.db.database import Database, DatabaseSettings, open_database
from tests.identity.coordinators import put_together
from tests.identity.peer import PROFILES
from tests.loopback import LOOPBACK

BUDGET = RefreshBudget(
    send=timedelta(seconds=2),
    http=timedelta(seconds=3),
    store=timedelta(seconds=3),
    wait=timedelta(seconds=60),
    poll=timedelta(milliseconds=100),
)
# For orders in which no limit has to pass: a slow machine's commit or fork may take longer than those above.
PATIENT = replace(BUDGET, send=timedelta(seconds=30), http=timedelta(seconds=60))
TTL = timedelta(seconds=2)  # of the lock: a stopped owner loses it


class Refresher:
    """What one child has open."""

    def __init__(
        self,
        asked: dict[str, Any],
        reached: Callable[[str], None] = lambda point: None,
        *,
        budget: RefreshBudget = BUDGET,
    ) -> None:
        client = redis.Redis.from_url(asked["redis"], socket_timeout=5) if asked["redis"] else None
        ids = Ids()
        self.database: Database = open_database(DatabaseSettings(url=asked["database"], threads=2))
        self.coordinator = put_together(
            self.database,
            Vault({1: bytes(32)}, os.urandom),
            Client(policy=LOOPBACK, pool_size=2),
            RefreshLock(client, ttl=TTL, token=lambda: secrets.token_hex(8), prefix="refresher:"),
            PROFILES,
            clock=lambda: datetime.now(UTC),
            ids=lambda: ids("ref"),
            budget=budget,
            gate=Gate(client, prefix="refresher:"),
            reached=reached,
        )

    def refresh(self, account: str, generation: int) -> str:
        try:
            return str(self.coordinator.refresh(account, after_generation=generation))
        except AswhomError as error:
            return type(error).__name__

    def expire(self, account: str) -> None:
        """Age the row."""
        ended = update(grants).where(grants.c.account_id == account).values(expires_at=datetime.now(UTC))
        self.database.write(lambda connection: connection.execute(ended).rowcount)

    def refresh_if_expired(self, account: str) -> int:
        """As a step does: look, refresh what has ended, and come back when it is told to."""
        while True:
            grant = self.database.read(lambda connection: get_grant(connection, account))
            assert grant is not None
            if grant.expires_at is None or grant.expires_at > datetime.now(UTC):
                return grant.generation
            try:
                return self.coordinator.refresh(account, after_generation=grant.generation)
            except Unavailable as later:  # a busy machine let `send_before` pass: nothing was sent
                time.sleep(later.retry_after.total_seconds())


def one(asked: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    """Fork a child for one order, and tell how it ended or that it stands still."""

    def reached(point: str) -> None:
        if point == order.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if point == order.get("stop"):
            os.kill(os.getpid(), signal.SIGSTOP)

    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            # A test that fails while this one is stopped kills the parent alone.
            ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
            refresher = Refresher(asked, reached, budget=PATIENT if order.get("patient") else BUDGET)
            os.write(writes, refresher.refresh(order["account"], order["generation"]).encode())
        finally:
            os._exit(0)
    os.close(writes)
    return ended(child, reads)


_SET_DEATH_SIGNAL = 1  # prctl(2)
_READS: dict[int, int] = {}


def ended(child: int, reads: int) -> dict[str, Any]:
    _, status = os.waitpid(child, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        _READS[child] = reads
        return {"stopped": child}
    if os.WIFSIGNALED(status):
        os.close(reads)
        return {"signal": os.WTERMSIG(status)}
    with os.fdopen(reads) as said:
        return {"said": said.read()}


def resumed(child: int) -> dict[str, Any]:
    os.kill(child, signal.SIGCONT)
    return ended(child, _READS.pop(child))


def many(asked: dict[str, Any], account: str, rounds: int) -> dict[str, Any]:
    """All processes want the same new token, *rounds* times; what each had after each round."""
    number = asked["processes"]
    fork = multiprocessing.get_context("fork")
    gate = fork.Barrier(number + 1, timeout=120)
    had = fork.Array("l", number * rounds, lock=False)

    def child(mine: int) -> None:
        refresher = Refresher(asked)
        for turn in range(rounds):
            gate.wait()
            with suppress(AswhomError):  # 0 stays there: the grant is lost, and the others need not wait for us
                had[turn * number + mine] = refresher.refresh_if_expired(account)
            gate.wait()

    children = [fork.Process(target=child, args=(mine,), daemon=True) for mine in range(number)]
    for each in children:
        each.start()
    ours = Refresher(asked)
    for _ in range(rounds):
        ours.expire(account)
        gate.wait()
        gate.wait()
    for each in children:
        each.join(60)
    states = [sorted(set(had[turn * number : (turn + 1) * number])) for turn in range(rounds)]
    return {"rounds": states, "codes": [each.exitcode for each in children]}


def main() -> None:
    asked = json.loads(sys.argv[1])
    for line in sys.stdin:
        order = json.loads(line)
        if "continue" in order:
            answer = resumed(order["continue"])
        elif "rounds" in order:
            answer = many(asked, order["account"], order["rounds"])
        else:
            answer = one(asked, order)
        print(json.dumps(answer), flush=True)
    os._exit(0)  # a parent that opened a database has threads of its own


if __name__ == "__main__":
    main()
