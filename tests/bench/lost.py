"""lost: deliveries answered 202 that are gone after kill -9 of the web and the broker, beside Flask and Celery.

A killed process loses what it has not given to the kernel. A power cut, which loses what was not flushed, is not shown.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

from sqlalchemy import select

from pipeline.tables import deliveries as table
from pipeline.tables import jobs
from tests.bench.accept import CONNECTIONS, MOST, Web, peer_on, web_on
from tests.bench.figures import Sheet
from tests.bench.ground import Ground, Ledger, Processes
from tests.bench.load import TOKEN, deliveries, send
from tests.servers.valkey import Valkey, valkey

SECONDS = 1.5  # of load, at whose end both are killed
QUEUE = "peer:peer"  # of `tests.bench.peer`: its prefix, and its name

Tokens = Callable[[], set[str]]  # of the deliveries that are there


def measure(ground: Ground, rounds: int) -> Sheet:
    sheet = Sheet("lost: answered 202, then kill -9 of the web and of Valkey")
    with ground.ledgers() as ledgers, valkey(appendfsync=None) as snapshots, ground.processes() as processes:
        for ledger in ledgers.values():
            ledger.receive("http://127.0.0.1:1")
        for _ in range(rounds):
            for broker, how in ((ground.broker, "Valkey with an AOF"), (snapshots, "Valkey with default snapshots")):
                for kind, ledger in ledgers.items():
                    _ours(sheet, f"Aswhom, {kind}, {how}", processes, ledger, broker)
                _peers(sheet, f"Flask + Celery, {how}", processes, next(iter(ledgers.values())), broker)
    sheet.notes.append(
        "No worker runs. A delivery is there if it is in the ledger with its job, or in the peer's queue."
    )
    return sheet


def _ours(sheet: Sheet, name: str, processes: Processes, ledger: Ledger, broker: Valkey) -> None:
    def start() -> Web:
        return web_on(processes, ledger, broker, peer="")

    with_jobs = select(table.c.delivery_id).join(jobs, jobs.c.delivery_id == table.c.id)
    _count(sheet, name, processes, broker, start, lambda: set(ledger.database.read(lambda c: c.scalars(with_jobs))))


def _peers(sheet: Sheet, name: str, processes: Processes, ledger: Ledger, broker: Valkey) -> None:
    def start() -> Web:
        return peer_on(processes, ledger, broker, name)

    def queued() -> set[str]:
        with broker.client() as client:
            messages = client.lrange(QUEUE, 0, -1)
        assert isinstance(messages, list)
        return {_token(message) for message in messages}

    broker.flush()
    _count(sheet, name, processes, broker, start, queued)


def _token(message: str) -> str:
    """That of a task in the peer's queue."""
    (document,), _, _ = json.loads(base64.b64decode(json.loads(message)["body"]))
    token: str = document["text"]
    assert len(token) == TOKEN
    return token


def _count(
    sheet: Sheet, name: str, processes: Processes, broker: Valkey, start: Callable[[], Web], there: Tokens
) -> None:
    web = start()
    requests = deliveries(int(MOST * SECONDS), web.port)
    loaded = send(requests, web.port, connections=CONNECTIONS[-1], seconds=SECONDS)
    processes.kill(web.servers["the web"])
    broker.restart()  # which kills it first
    again = start()
    lost = set(loaded.tokens) - there()
    processes.kill(again.servers["the web"])
    sheet.add(f"{name}, answered 202", len(loaded.tokens), "")
    sheet.add(f"{name}, of them lost", len(lost), "")
