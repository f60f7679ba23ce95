"""audit: how fast the chain is sealed, and verified in the ledger and in an export."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, insert

from identity.audit.chain import Verified
from identity.audit.export import export_lines, verify_files
from identity.audit.sealer import Sealer
from identity.audit.tables import audit
from identity.audit.verification import verify
from identity.keys.signing import Signer
from identity.keys.trusted_keys import TrustedKeys
from identity.sql.store import Store
from tests.bench.figures import Sheet
from tests.bench.ground import Ground

ROWS, CHUNK = 50_000, 5_000
SIGNER = Signer.from_seed(b"s" * 32)


def measure(ground: Ground, rounds: int) -> Sheet:
    sheet = Sheet(f"audit: seal, export and verify {ROWS:,} rows")
    sheet.notes.append("sealing is measured once; the export stays in memory, and verifying it needs no database")
    with ground.ledgers() as ledgers:
        for ledger in ledgers.values():
            for first in range(0, ROWS, CHUNK):
                ledger.database.write(partial(_fill, first=first))
            keys, sealer = TrustedKeys(SIGNER.public_key()), Sealer(ledger.database, SIGNER)
            seconds, _ = _timed(partial(_seal, sealer))
            sheet.add(f"{ledger.kind}: sealed", ROWS / seconds, "rows/s")
            for _ in range(rounds):
                worked = time.process_time()
                seconds, outcome = _timed(partial(verify, ledger.database, keys))
                worked = time.process_time() - worked
                assert isinstance(outcome, Verified), outcome
                sheet.add(f"{ledger.kind}: verified in the ledger, processor", worked / ROWS * 1e6, "µs/row")
                sheet.add(f"{ledger.kind}: verified in the ledger", ROWS / seconds, "rows/s")
                seconds, lines = _timed(partial(_export, ledger.database))
                sheet.add(f"{ledger.kind}: exported", ROWS / seconds, "rows/s")
                seconds, audited = _timed(partial(verify_files, [("export", lines)], keys))
                assert isinstance(audited.outcome, Verified), audited
                sheet.add(f"{ledger.kind}: export verified", ROWS / seconds, "rows/s")
    return sheet


def _seal(sealer: Sealer) -> None:
    while sealer.run(now=datetime.now(UTC)):
        pass


def _export(store: Store) -> list[bytes]:
    return list(export_lines(store))


def _timed(act: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = act()
    return time.perf_counter() - began, result


def _fill(connection: Connection, *, first: int) -> None:
    """Rows such as a step leaves."""
    now = datetime.now(UTC)
    rows = [
        {
            "id": f"att_{number:022}", "at": now, "number": 1_000_000 + number, "kind": "attempt.closed",
            "tenant_id": "acme", "agent_id": "devops-assistant", "principal_id": "acme.ada", "pattern": "delegated",
            "on_behalf_of": "acme.ada", "account_id": "acc_01234567890123456789", "generation": 3,
            "job_id": f"job_{number // 4:022}", "step_id": f"job_{number // 4:022}.1",
            "attempt_id": f"att_{number:022}", "action": "github.Comment", "outcome": "effect",
            "reason": "named by the workflow: attribution required, user-triggered, write",
            "detail": {"purpose": "call", "status": 201, "external_id": "4217", "upstream_request_id": "C0DE:1234"},
        }
        for number in range(first, first + CHUNK)
    ]  # fmt: skip
    connection.execute(insert(audit), rows)
