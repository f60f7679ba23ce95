"""capability: a token minted, verified and spent; the verifier alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from identity.capability.model import Algorithm
from tests.bench.figures import Sheet, percentile
from tests.bench.ground import Ground, Ledger
from tests.capability.court import INVOICES, PAID, Court

TIMES = 300


def measure(ground: Ground, rounds: int) -> Sheet:
    sheet = Sheet("capability: mint, verify and spend; a spend is one durable commit")
    with ground.ledgers() as ledgers:
        courts = {kind: _court(ledger) for kind, ledger in ledgers.items()}
        for _ in range(rounds):
            for kind, court in courts.items():
                _spends(kind, court, sheet)
            for algorithm in Algorithm:
                _verifications(algorithm, courts["SQLite"], sheet)
    sheet.notes.append("The capabilities are recorded beforehand, as a step's opening does it in its own commit.")
    return sheet


def _court(ledger: Ledger) -> Court:
    return Court(ledger.database).build()


def _spends(kind: str, court: Court, sheet: Sheet) -> None:
    recorded = [court.issue() for _ in range(TIMES)]
    waiting = iter(recorded)

    def one() -> None:
        token = court.token(next(waiting))
        assert court.spend(token)["spend"] == "first"

    worked = time.process_time()
    took = _timed(one, TIMES)
    worked = time.process_time() - worked
    sheet.add(f"{kind}: mint + verify + spend, p50", percentile(took, 0.5) * 1000, "ms")
    sheet.add(f"{kind}: mint + verify + spend, p99", percentile(took, 0.99) * 1000, "ms")
    sheet.add(f"{kind}: mint + verify + spend, processor", worked / TIMES * 1000, "ms")


def _verifications(algorithm: Algorithm, court: Court, sheet: Sheet) -> None:
    audience = replace(INVOICES, algorithm=algorithm)
    token = court.token(court.issue(audience=audience), algorithm).reveal()
    verifier, now = court.issuer.verifier(INVOICES.uri), datetime.now(UTC)
    took = _timed(lambda: verifier.verify(token, now=now, request_sha256=PAID), TIMES * 5)
    sheet.add(f"verifier, {algorithm}", 1 / percentile(took, 0.5), "/s")


def _timed(act: Callable[[], object], times: int) -> list[float]:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        took.append(time.perf_counter() - began)
    return took
