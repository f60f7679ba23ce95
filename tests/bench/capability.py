"""capability: a token minted, verified and spent, its parts, and what it stands on; the verifier alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from identity.capability.model import Algorithm
from tests.bench.figures import Sheet, percentile
from tests.bench.ground import Ground, Ledger
from tests.bench.step import ROWS, insert_row
from tests.capability.capability_ledger import INVOICES, PAID, CapabilityLedger

TIMES = 300
TOKEN = b"x" * 900  # as long as the text that is signed


def measure(ground: Ground, rounds: int) -> Sheet:
    sheet = Sheet("capability: mint, verify and spend, beside one bare commit and one bare signature")
    with ground.ledgers() as ledgers:
        built = {kind: _built(ledger) for kind, ledger in ledgers.items()}
        for _ in range(rounds):
            for kind, ledger in built.items():
                floor = _floor(kind, ledger, sheet)
                _spends(kind, ledger, sheet, floor=floor)
            for algorithm in Algorithm:
                _verifications(algorithm, next(iter(built.values())), sheet)
    sheet.notes.append("The capabilities are recorded beforehand, as a step's opening does it in its own commit.")
    sheet.notes.append(
        "The floor is one row committed, and an Ed25519 signature made and checked by cryptography alone."
    )
    return sheet


def _built(ledger: Ledger) -> CapabilityLedger:
    ledger.database.write(ROWS.create)
    return CapabilityLedger(ledger.database).build()


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


def _verifications(algorithm: Algorithm, ledger: CapabilityLedger, sheet: Sheet) -> None:
    audience = replace(INVOICES, algorithm=algorithm)
    token = ledger.token(ledger.issue(audience=audience), algorithm).reveal()
    verifier, now = ledger.issuer.verifier(INVOICES.uri), datetime.now(UTC)
    took = _timed(lambda: verifier.verify(token, now=now, request_sha256=PAID), TIMES * 5)
    sheet.add(f"verifier, {algorithm}", 1 / percentile(took, 0.5), "/s")


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
