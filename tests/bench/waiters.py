"""waiters: a thousand threads that want one account's next token, beside Authlib's client and redis-py's lock."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import secrets
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl

import httpx
import redis
from sqlalchemy import Connection, update

from identity.accounts.grants import get_grant
from identity.connections.registry import get_connection
from identity.connections.secrets import CLIENT_SECRET, add_secret, seal_secret
from identity.http.client import Client
from identity.ids import Ids
from identity.keys.vault import Vault
from identity.providers import PROFILES
from identity.refresh.flight import Latch
from identity.refresh.lock import RefreshLock
from identity.secret import Secret
from identity.tables import provider_connections
from identity.token_endpoint.budget import RefreshBudget
from identity.token_endpoint.gate import Gate
from pipeline.db.database import DatabaseSettings, open_database
from tests.bench.figures import Sheet, percentile
from tests.bench.ground import Ground, Ledger
from tests.identity.coordinators import put_together
from tests.loopback import LOOPBACK

PROCESSES, THREADS = 4, 250
TAKES = 0.2  # seconds that the provider takes
PATIENCE = 60.0
ALONE = "one request to the provider"


class Provider(ThreadingHTTPServer):
    """Rotates, takes its time, and ends the grant when a used refresh token is shown again."""

    daemon_threads, request_queue_size = True, 2048

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.lock = threading.Lock()
        self.begin("")

    def begin(self, token: str, *, beside: str = "") -> None:
        """A new grant; *beside* is the token of another one, which nobody counts."""
        self.current, self.presented, self.destroyed, self.beside = token, 0, False, beside

    def exchange(self, token: str) -> tuple[int, bytes]:
        with self.lock:
            new = secrets.token_hex(8)
            if token == self.beside:
                self.beside = new
            else:
                self.presented += 1
                if token != self.current or self.destroyed:
                    self.destroyed = True
                    return 400, b'{"error": "invalid_grant"}'
                self.current = new
            fields = f'"access_token": "{secrets.token_hex(8)}", "refresh_token": "{new}"'
            return 200, f'{{{fields}, "token_type": "bearer", "expires_in": 3600}}'.encode()


class Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_POST(self) -> None:
        form = dict(parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
        time.sleep(TAKES)
        status, body = self.server.exchange(form["refresh_token"])
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...


class Waiter(Protocol):
    """What one process does for each of its threads; True if it had a new token."""

    def __call__(self) -> bool: ...


def unprepared() -> None:
    """Nothing to do before the thousand come."""


@dataclass(frozen=True, kw_only=True)
class Ours:
    """The coordinator of production."""

    database: str
    redis: str
    account: str
    generation: int
    beside: str  # an account that each process renews first: a worker has been up for long when a thousand come

    def open(self) -> tuple[Waiter, Callable[[], object]]:
        client, ids, budget = redis.Redis.from_url(self.redis, socket_timeout=5), Ids(), RefreshBudget()
        database = open_database(DatabaseSettings(url=self.database))
        coordinator = put_together(
            database,
            Vault({1: b"k" * 32}, os.urandom),
            Client(policy=LOOPBACK),
            RefreshLock(client, ttl=budget.lock_ttl, token=partial(secrets.token_hex, 8)),
            PROFILES,
            clock=lambda: datetime.now(UTC),
            ids=partial(ids, "ref"),
            budget=budget,
            gate=Gate(client),
        )

        def prepare() -> int:
            grant = database.read(partial(get_grant, account=self.beside))
            assert grant is not None
            return coordinator.refresh(self.beside, after_generation=grant.generation)

        return lambda: coordinator.refresh(self.account, after_generation=self.generation) > self.generation, prepare


@dataclass(frozen=True, kw_only=True)
class Peers:
    """Authlib's client under redis-py's Lock with its default of looking every 0.1 s; the token is a hash in Redis.

    *again*: the token is read once more under the lock. Authlib's documentation gives the client its token when it is
    made, and says nothing of locks.
    """

    redis: str
    url: str
    again: bool

    def open(self) -> tuple[Waiter, Callable[[], object]]:
        with warnings.catch_warnings():  # it would rather have httpx2
            warnings.simplefilter("ignore")
            from authlib.integrations.httpx_client import OAuth2Client
        store = redis.Redis.from_url(self.redis, decode_responses=True)

        def wait() -> bool:
            token = store.hgetall("peer:token")
            with store.lock("peer:lock", timeout=60, blocking_timeout=PATIENCE):
                if self.again:
                    token = store.hgetall("peer:token")
                if float(token["expires_at"]) > time.time():
                    return True
                client = OAuth2Client("client", "secret", token_endpoint=self.url)
                new = client.refresh_token(f"{self.url}/token", refresh_token=token["refresh_token"])
                for name in ("access_token", "refresh_token", "expires_at"):
                    store.hset("peer:token", name, str(new[name]))
                return True

        return wait, unprepared


def process(what: Ours | Peers, turn: Any, gate: Any, results: Any) -> None:
    """One process of waiters: how long each waited, and whether it had a token."""
    waiter, prepare = what.open()
    with turn:
        prepare()
    # One lets the next one go: a Barrier's hundreds all fight for the interpreter before they have even begun.
    start, done, end = Latch(), Latch(), Latch()
    took: list[tuple[float, bool]] = []
    counted = itertools.count(1)

    def one() -> None:
        start.wait(PATIENCE)
        began = time.perf_counter()
        try:
            had = waiter()
        except Exception:  # noqa: BLE001 - whatever the peer's parts raise, it had none
            had = False
        took.append((time.perf_counter() - began, had))
        if next(counted) == THREADS:
            done.open()
        end.wait(2 * PATIENCE)  # a worker's threads do not end either, which takes longer than being woken

    threads = [threading.Thread(target=one) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    gate.wait()
    start.open()
    done.wait(2 * PATIENCE)
    end.open()
    for thread in threads:
        thread.join()
    results.put(took)


def at_once(what: Ours | Peers) -> list[tuple[float, bool]]:
    spawn = multiprocessing.get_context("spawn")
    turn, gate, results = spawn.Lock(), spawn.Barrier(PROCESSES, timeout=3 * PATIENCE), spawn.Queue()
    running = [spawn.Process(target=process, args=(what, turn, gate, results)) for _ in range(PROCESSES)]
    for each in running:
        each.start()
    took = [one for _ in running for one in results.get(timeout=4 * PATIENCE)]
    for each in running:
        each.join()
    return took


def furnish(c: Connection, *, ledger: Ledger, url: str) -> None:
    c.execute(update(provider_connections).values(token_url=f"{url}/token"))
    owner, now = get_connection(c, "gh"), datetime.now(UTC)
    secret = Secret("secret")
    add_secret(c, seal_secret(ledger.house.vault, owner, id="cs", name=CLIENT_SECRET, secret=secret, now=now))


def measure(ground: Ground, rounds: int) -> Sheet:
    sheet = Sheet(
        f"waiters: {PROCESSES * THREADS:,} threads in {PROCESSES} processes at a provider of {TAKES * 1000:.0f} ms"
    )
    destroyed: Counter[str] = Counter()
    provider = Provider()
    threading.Thread(target=provider.serve_forever, daemon=True).start()
    store = redis.Redis.from_url(ground.broker.url)
    with ground.ledgers() as ledgers:
        for ledger in ledgers.values():
            ledger.database.write(partial(furnish, ledger=ledger, url=provider.url))
        for _ in range(rounds):
            alone(provider, sheet)
            for ledger in ledgers.values():
                account = ledger.house.connect("acme", "acme.ada", lasts=timedelta(seconds=1))
                beside = ledger.house.connect("acme", "acme.service", lasts=timedelta(seconds=1))
                generation, other = newest(ledger, account), newest(ledger, beside)
                provider.begin(f"refresh-acme.ada-{generation}", beside=f"refresh-acme.service-{other}")
                ours = Ours(
                    database=ledger.url,
                    redis=ground.broker.url,
                    account=account,
                    generation=generation,
                    beside=beside,
                )
                destroyed[note(sheet, f"Aswhom on {ledger.kind}", ours, provider)] += provider.destroyed
            for name, again in (("Authlib + Lock, token read before it", False), ("… and again under it", True)):
                provider.begin("first")
                store.hset("peer:token", mapping={"access_token": "a", "refresh_token": "first", "expires_at": "0"})
                peer = Peers(redis=ground.broker.url, url=provider.url, again=again)
                destroyed[note(sheet, name, peer, provider)] += provider.destroyed
    provider.shutdown()
    sheet.notes += [f"{name}: {count} of {rounds} grants destroyed" for name, count in destroyed.items()]
    return sheet


def alone(provider: Provider, sheet: Sheet) -> None:
    """What one request to the provider takes, with nobody else and by a client that has asked before."""
    with httpx.Client(trust_env=False) as client:
        for token in ("before", "alone"):
            provider.begin(token)
            began = time.perf_counter()
            client.post(f"{provider.url}/token", data={"refresh_token": token}).raise_for_status()
        sheet.add(ALONE, (time.perf_counter() - began) * 1000, "ms")


def note(sheet: Sheet, name: str, what: Ours | Peers, provider: Provider) -> str:
    took = at_once(what)
    waited = [seconds * 1000 for seconds, _ in took]
    sheet.add(f"{name}, p50", percentile(waited, 0.5), "ms", peer=ALONE)
    sheet.add(f"{name}, p99", percentile(waited, 0.99), "ms", peer=ALONE)
    sheet.add(f"{name}, without a token", sum(not had for _, had in took), "")
    sheet.add(f"{name}, presentations", provider.presented, "")
    return name


def newest(ledger: Ledger, account: str) -> int:
    grant = ledger.database.read(partial(get_grant, account=account))
    assert grant is not None
    return grant.generation
