"""Reasons why a receipt says that no provider was asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from identity.model import ScopeKind
from pipeline.revocation.tables import NARROWING


def why_not_asked(receipt: Mapping[str, Any]) -> str:
    """Return the reason, as the rest of a sentence."""
    if receipt["scope"]["kind"] == ScopeKind.AGENT:
        return "an agent acts with credentials that others use too"
    if receipt["scope"]["kind"] == NARROWING and receipt["signal"] is not None:
        return "it took the scopes away itself"
    if receipt["scope"]["kind"] == NARROWING:
        return "the token keeps there what it was granted, and what was taken is used by nobody here"
    reasons = {one["reason"] for one in receipt["provider"]["accounts"]}
    match sorted(filter(None, reasons)):
        case []:
            return "no credential was held that it could end"
        case [reason]:
            return str(reason)
        case _:
            return "each credential has its own reason"
