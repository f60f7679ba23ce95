"""Conclusions about an account from an upstream's refusal of its token, stored for the next opening."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import partial

from identity.accounts.inferred_death import infer_death
from identity.accounts.inferred_suspension import infer_suspension
from identity.model import Leased
from identity.sql.store import CommitUnknown
from pipeline.execution.interruption import RunAgain
from pipeline.execution.services import Services


def hold_back(services: Services, lease: Leased, *, began: float) -> bool:
    """Hold back the account's steps, and return whether they are held. *began*: monotonic, before the opening."""
    now = datetime.now(UTC)
    infer = partial(
        infer_suspension,
        account=lease.account,
        generation=lease.generation,
        sent_at=now - timedelta(seconds=time.monotonic() - began),
        audit_id=services.ids("aud"),
        now=now,
    )
    try:
        return services.store.write(infer)
    except CommitUnknown:
        return False  # the next attempt sees whether it was stored


def ask_to_reconnect(services: Services, lease: Leased) -> None:
    """Have a person reconnect the account: its token was renewed after a refusal and was refused again."""
    infer = partial(
        infer_death,
        account=lease.account,
        generation=lease.generation,
        audit_id=services.ids("aud"),
        now=datetime.now(UTC),
    )
    try:
        services.store.write(infer)
    except CommitUnknown:
        raise RunAgain("whether the account waits for a person is not known", delay=services.settings.backoff) from None
