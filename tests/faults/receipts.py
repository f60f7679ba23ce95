"""The receipt of a revocation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from pipeline.revocation.tables import revocations
from tests.system.rig import System


def receipt_of(system: System, made: str) -> Mapping[str, Any]:
    """The receipt, once there is one; its signature fits."""
    system.wait(lambda: system.receipt(made) is not None, f"the receipt of {made}")
    (row,) = system.rows(select(revocations.c.receipt, revocations.c.signature).where(revocations.c.id == made))
    assert system.runtime.signer.verifies(row.receipt, row.signature)
    assert not system.runtime.signer.verifies({**row.receipt, "in_flight": ["none"]}, row.signature)
    receipt: Mapping[str, Any] = row.receipt
    return receipt
