"""What the console's pages are made from."""

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
from pipeline.workflow import Registry
from webhooks.bells import Bells
from webhooks.console.access import visitor

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Console:
    """Given by whoever puts the web together."""

    store: Store
    ahead: Store  # the same, for what must not wait its turn
    workflows: Registry
    ids: Ids
    public_key: Ed25519PublicKey  # of receipts
    invitations: Invitations
    approving: Approving
    sign_in: SignIn | None = None  # None: links alone sign in
    lifetime: timedelta = timedelta(hours=8)  # of a session
    idle: timedelta | None = None  # that a session lasts unused; None: no limit of its own
    label: str | None = None  # which installation this is, for people with several; None: the host says it


@dataclass(frozen=True, kw_only=True)
class Desk(Console):
    """What pages read, and acts write: what the console was given, and what the app it is served from has."""

    bells: Bells
    clock: Callable[[], datetime]

    @classmethod
    def of(cls, console: Console, bells: Bells, *, clock: Callable[[], datetime]) -> Desk:
        """The desk of that console."""
        return cls(**vars(console), bells=bells, clock=clock)

    def read(self, fn: Callable[[Connection], T]) -> T:
        return self.store.read(fn)

    def write(self, fn: Callable[[Connection], T]) -> T:
        return self.store.write(fn)

    def act(self) -> Act:
        """A new act of the visitor at hand, for what is written: made before the write, which may run twice."""
        why = " ".join(request.form.get("why", "").split())[:500] or None
        return Act(audit_id=self.ids("aud"), by=visitor().person.by, now=self.clock(), why=why)
