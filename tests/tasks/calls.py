"""The call of one step, as the pipeline would make it."""

from __future__ import annotations

from datetime import UTC, datetime

from pipeline.action import Call


def make_call() -> Call:
    return Call(
        idempotency_key="5e" * 32,
        client_id="0b9c2a6e-3c1f-5b8d-9f2e-6d0a4c7e1b35",
        marker="<!-- aswhom:5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e -->",
        opened_at=datetime(2026, 3, 1, 12, 0, 30, 123456, tzinfo=UTC),
    )
