"""The hold: while it stands nothing goes out in anybody's name. What comes in is taken, and revocations take effect.

One row in the ledger, which the statements look at that claim a job, open a step, and begin a token request or a
withdrawal, and every duty that asks somebody outside. What had begun by then ends as always.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Exists, bindparam, delete, exists, func, select

from identity import audit
from identity.audit import Act, AsWhom
from identity.audit.tables import audit as audit_rows
from identity.errors import Unavailable
from identity.hold_tables import holds
from identity.model import AccountState
from identity.sql.prepared import Prepared
from identity.sql.rows import insert_new
from identity.tables import accounts

#: Why nothing goes out now.
HELD = "the installation is held: `aswhom hold show` says why, `aswhom hold release` ends it"
#: The same, for who uses the installation and does not run it.
HELD_FOR_OTHERS = "whoever runs this holds everything for now: nothing goes out until they release it"
#: Whether the installation is held, for a larger statement: of an empty table, so it costs next to nothing.
IS_HELD: Exists = exists(select(holds.c.id))

_RELEASED = "hold.released"
_FIND = Prepared(select(holds))
_STATE = Prepared(select(accounts.c.state, IS_HELD.label("is_held")).where(accounts.c.id == bindparam("account")))


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Since when the installation is held, by whom, and why."""

    since: datetime
    by: str
    why: str

    @property
    def sentence(self) -> str:
        """For operators; what others read of it names nobody: `HELD_FOR_OTHERS`."""
        return f"held since {self.since:%Y-%m-%d %H:%M} UTC by {self.by}: nothing goes out ({self.why})"


def find_hold(connection: Connection) -> Hold | None:
    """The hold that stands, if there is one."""
    row = _FIND.run(connection).one_or_none()
    return None if row is None else Hold(since=row.since, by=row.by, why=row.why)


def state_unless_held(connection: Connection, account: str) -> AccountState:
    """The state of an account for which a token is about to be asked. Raises Unavailable while the installation is
    held: nothing may be sent.
    """
    row = _STATE.run(connection, {"account": account}).one()
    if row.is_held:
        raise Unavailable(HELD)
    return AccountState(row.state)


def set_hold(connection: Connection, act: Act) -> bool:
    """Hold the installation, for the reason that the act has. False: it was held already, and that hold stays."""
    if not insert_new(connection, holds, _row(act)):
        return False
    audit.record_act(connection, "hold.set", AsWhom(tenant=None), act, outcome="held")
    return True


def hold_anew(connection: Connection, act: Act) -> Hold | None:
    """Hold the installation for this reason, whatever other it was held for: that hold, which is no longer.

    For who records it as part of something else. Else whoever set the other one would release this one with it.
    """
    was = find_hold(connection)
    connection.execute(delete(holds))
    insert_new(connection, holds, _row(act))
    return was


def last_release(connection: Connection, *, after: int) -> datetime | None:
    """When the last hold was released that stood after this ledger number; None: none was."""
    rows = audit_rows.c
    released = select(func.max(rows.at)).where(rows.tenant_id == "", rows.number > after, rows.kind == _RELEASED)
    last: datetime | None = connection.execute(released).scalar_one()
    return last


def release_hold(connection: Connection, act: Act) -> Hold | None:
    """End the hold; what it was, None where nothing was held."""
    was = find_hold(connection)
    if was is None or connection.execute(delete(holds)).rowcount != 1:
        return None
    detail = {"since": was.since.isoformat(), "held_by": was.by, "held_why": was.why}
    audit.record_act(connection, _RELEASED, AsWhom(tenant=None), act, outcome="released", detail=detail)
    return was


def _row(act: Act) -> dict[str, Any]:
    return {"id": 1, "since": act.now, "by": act.by[:200], "why": act.why or ""}
