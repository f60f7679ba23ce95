"""An operator's word about calls of unknown outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from identity.audit import Act
from pipeline.authoring.registry import Registry
from pipeline.steps.resolution import Resolution, resolve_by_hand
from tests.ledger.house import House


def resolve(house: House, job: str, calls: Sequence[str], result: Mapping[str, Any] | None = None) -> list[str]:
    """Say that the calls had this result; None: no effect. Returns the revocations that need a new receipt."""
    found_out = Resolution(calls=calls, effect=result is not None, result=result)
    act = Act(audit_id=house.ids("aud"), by="ops", now=datetime.now(UTC))
    workflows = Registry([house.workflow])
    told: list[str] = house.database.write(lambda c: resolve_by_hand(c, job, found_out, act, workflows))
    return told
