"""capability: a token minted, verified and spent, its parts, and the spend over HTTP; an upstream's verification."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, func, select

from identity.capability import issued
from identity.capability.model import Algorithm
from identity.capability.tables import capabilities
from identity.capability.verifier import Capability, PublishedKeys, Verifier, request_hash
from tests.bench.figures import Sheet, percentile
from tests.bench.ground import Ground, Ledger, Processes, listed
from tests.bench.load import send
from tests.bench.step import ROWS, insert_row
from tests.capability.capability_ledger import BASE, INVOICES, PAID, PAY, CapabilityLedger, secret_of
from tests.servers.process import free_port

TIMES = 300
OVER_HTTP = {1: 300, 16: 1_000}  # tokens that are introspected, by connections
TOKEN = b"x" * 900  # as long as the text that is signed


def measure(ground: Ground, rounds: int) -> Sheet:
    sheet = Sheet("capability: mint, verify and spend, beside one bare commit and one bare signature")
    with ground.ledgers() as ledgers, ground.processes() as processes:
        built = {kind: _built(ledger) for kind, ledger in ledgers.items()}
        ports = {kind: _web(processes, ledger) for kind, ledger in ledgers.items()}
        for kind, ledger in built.items():
            _introspect(ledger, ports[kind], 50, connections=4)  # not measured: connections are opened
        for _ in range(rounds):
            for kind, ledger in built.items():
                floor = _floor(kind, ledger, sheet)
                _spends(kind, ledger, sheet, floor=floor)
                for connections, tokens in OVER_HTTP.items():
                    took = _introspect(ledger, ports[kind], tokens, connections=connections)
                    name = f"{kind}: introspection over HTTP, {connections} connection{'s' if connections > 1 else ''}"
                    sheet.add(f"{name}, p50", _milliseconds(took), "ms")
                    sheet.add(f"{name}, p99", percentile(took, 0.99) * 1000, "ms")
            kind, ledger = next(iter(built.items()))
            for algorithm in Algorithm:
                _verifications(algorithm, ledger, ports[kind], sheet)
    sheet.notes.append("The capabilities are recorded beforehand, as a step's opening does it in its own commit.")
    sheet.notes.append(
        "The floor is one row committed, and an Ed25519 signature made and checked by cryptography alone."
    )
    sheet.notes.append("An upstream verifies with the published keys, hashes the request and asks what is prohibited.")
    return sheet


def _built(ledger: Ledger) -> CapabilityLedger:
    """The services and keys, sealed by the vault's key that the web process has."""
    ledger.database.write(ROWS.create)
    return CapabilityLedger(ledger.database, vault=ledger.house.vault).build()


def _web(processes: Processes, ledger: Ledger) -> int:
    """The web process of the Procfile; its port."""
    port = free_port()
    environment = ledger.environment(ASWHOM_LISTEN=f"127.0.0.1:{port}", ASWHOM_BASE_URL=BASE)
    processes.serve(listed("web").command, environment, f"http://127.0.0.1:{port}/readyz")
    return port


def _introspect(ledger: CapabilityLedger, port: int, number: int, *, connections: int) -> list[float]:
    """How long each of so many first spends took, in seconds, as their audience sees it."""

    def record(c: Connection) -> list[Capability]:
        now, within = ledger.now(), timedelta(seconds=10)
        return [issued.issue(c, wanted, now=now, use_within=within) for wanted in wants]

    wants = [ledger.wanted() for _ in range(number)]
    tokens = [ledger.token(one).reveal() for one in ledger.database.write(record)]
    before = _spent(ledger)
    loaded = send(
        [_introspection(token, port) for token in tokens], port, connections=connections, seconds=60, accepts=200
    )
    assert (len(loaded.accepted), _spent(ledger) - before) == (number, number), "not every token was spent"
    return loaded.accepted


def _introspection(token: str, port: int) -> bytes:
    body = urlencode({"token": token, "request_sha256": PAID}).encode()
    client = b64encode(f"{INVOICES.id}:{secret_of(INVOICES).reveal()}".encode()).decode()
    head = (
        f"POST /oauth/introspect HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Basic {client}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _spent(ledger: CapabilityLedger) -> int:
    spent = select(func.count()).where(capabilities.c.spent_at.is_not(None))
    return int(ledger.database.read(lambda c: c.execute(spent).scalar_one()))


def _floor(kind: str, ledger: CapabilityLedger, sheet: Sheet) -> str:
    """Measure what nothing that signs, checks and stores can be cheaper than; the series it is noted in."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key()

    def one() -> None:
        public.verify(key.sign(TOKEN), TOKEN)
        ledger.database.write(partial(insert_row, row=ledger.ids("row")))

    name = f"{kind}: floor, p50"
    sheet.add(name, _milliseconds(_timed(one, TIMES)), "ms")
    return name


def _spends(kind: str, ledger: CapabilityLedger, sheet: Sheet, *, floor: str) -> None:
    recorded = [ledger.issue() for _ in range(TIMES)]
    waiting = iter(recorded)
    minted: list[float] = []

    def one() -> None:
        began = time.perf_counter()
        token = ledger.token(next(waiting))
        minted.append(time.perf_counter() - began)
        assert ledger.spend(token)["spend"] == "first"

    worked = time.process_time()
    took = _timed(one, TIMES)
    worked = time.process_time() - worked
    sheet.add(f"{kind}: mint + verify + spend, p50", _milliseconds(took), "ms", peer=floor)
    sheet.add(f"{kind}: mint + verify + spend, p99", percentile(took, 0.99) * 1000, "ms")
    sheet.add(f"{kind}: mint + verify + spend, processor", worked / TIMES * 1000, "ms")
    sheet.add(f"{kind}: of it the mint, p50", _milliseconds(minted), "ms")
    spent = [whole - mint for whole, mint in zip(took, minted, strict=True)]
    sheet.add(f"{kind}: of it verify + spend, p50", _milliseconds(spent), "ms")


def _verifications(algorithm: Algorithm, ledger: CapabilityLedger, port: int, sheet: Sheet) -> None:
    audience = replace(INVOICES, algorithm=algorithm)
    token = ledger.token(ledger.issue(audience=audience), algorithm).reveal()
    keys = PublishedKeys(url=f"http://127.0.0.1:{port}/.well-known/jwks.json")
    verifier = Verifier(issuer=BASE, audience=INVOICES.uri, keys=keys)
    about = {"action": "invoices.PayInvoice", "resource": "invoices/inv_7", "tenant": "acme", "currency": "EUR"}

    def one() -> None:
        capability = verifier.verify(token, now=datetime.now(UTC), request_sha256=request_hash(*PAY))
        assert capability.prohibits(amount=Decimal("1250.00"), **about) is None

    sheet.add(f"an upstream's verification, {algorithm}", 1 / percentile(_timed(one, TIMES * 5), 0.5), "/s")


def _milliseconds(took: list[float]) -> float:
    return percentile(took, 0.5) * 1000


def _timed(act: Callable[[], object], times: int) -> list[float]:
    """In a thread as the web's are, not in the main one, whose writes to SQLite another does."""
    took = []

    def work() -> None:
        for _ in range(times):
            began = time.perf_counter()
            act()
            took.append(time.perf_counter() - began)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()
    return took
