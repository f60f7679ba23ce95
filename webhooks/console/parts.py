"""Services that the console's pages use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from flask import request
from sqlalchemy import Connection

from identity.audit import Act
from identity.console.sign_in import SignIn
from identity.ids import Ids
from identity.sql.store import Store
from pipeline.accounts.invitations import Invitations
from pipeline.approvals.approving import Approving
from pipeline.authoring.registry import Registry
from webhooks.bells import Bells
from webhooks.console.access import May, need_of, visitor

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Console:
    """Services and settings of the console, supplied by the composition root."""

    store: Store
    ahead: Store  # the same, for revocations, which must not wait their turn
    workflows: Registry
    ids: Ids
    public_key: Ed25519PublicKey  # of receipts
    invitations: Invitations
    approving: Approving
    sign_in: SignIn | None = None  # None: only links sign in
    lifetime: timedelta = timedelta(hours=8)  # of a session
    idle: timedelta | None = None  # how long an unused session lasts; None: as long as any
    label: str | None = None  # the installation's name, for people with several; None: the host's name


@dataclass(frozen=True, kw_only=True)
class Desk(Console):
    """The console's services, with the bells and clock of the app that serves it."""

    bells: Bells
    clock: Callable[[], datetime]

    @classmethod
    def of(cls, console: Console, bells: Bells, *, clock: Callable[[], datetime]) -> Desk:
        """Extend *console* with the app's services."""
        return cls(**vars(console), bells=bells, clock=clock)

    def read(self, fn: Callable[[Connection], T]) -> T:
        """Run a read for the current page; those of a revocation's form and act go ahead."""
        return (self.ahead if need_of(request.endpoint) is May.REVOKE else self.store).read(fn)

    def write(self, fn: Callable[[Connection], T]) -> T:
        return self.store.write(fn)

    def act(self) -> Act:
        """Return a new act of the current visitor. Create it before the write, which may run twice."""
        why = " ".join(request.form.get("why", "").split())[:500] or None
        return Act(audit_id=self.ids("aud"), by=visitor().person.by, now=self.clock(), why=why)
