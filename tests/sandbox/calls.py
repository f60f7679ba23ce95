"""A step's call, of a key of its own."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from pipeline.action import Call


def a_call() -> Call:
    key = uuid.uuid4()
    return Call(
        idempotency_key=key.hex, client_id=str(key), marker=f"<!-- aswhom {key.hex} -->", opened_at=datetime.now(UTC)
    )
