"""The hold: while it stands, nothing goes out in anybody's name. Input is still accepted and revocations take effect.

The hold is one row in the ledger. It is checked by the statements that claim a job, open a step, or begin a token
request or a withdrawal, and by every duty that contacts somebody outside. Work that had already begun ends as usual.
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

#: The reason why nothing goes out now.
HELD = "the installation is held: `aswhom hold show` says why, `aswhom hold release` ends it"
#: The same, for people who use the installation but do not run it.
HELD_FOR_OTHERS = "whoever runs this holds everything for now: nothing goes out until they release it"
#: Condition that the installation is held, for a larger statement. Cheap: the table is almost always empty.
IS_HELD: Exists = exists(select(holds.c.id))

_RELEASED = "hold.released"
_FIND = Prepared(select(holds))
_STATE = Prepared(select(accounts.c.state, IS_HELD.label("is_held")).where(accounts.c.id == bindparam("account")))


@dataclass(frozen=True, kw_only=True)
class Hold:
    """A hold: since when, by whom, and why."""

    since: datetime
    by: str
    why: str

    @property
    def sentence(self) -> str:
        """The hold in words, for operators. Other people read `HELD_FOR_OTHERS`, which names nobody."""
        return f"held since {self.since:%Y-%m-%d %H:%M} UTC by {self.by}: nothing goes out ({self.why})"


def find_hold(connection: Connection) -> Hold | None:
    """Return the hold that stands, if there is one."""
    row = _FIND.run(connection).one_or_none()
    return None if row is None else Hold(since=row.since, by=row.by, why=row.why)


def state_unless_held(connection: Connection, account: str) -> AccountState:
    """Return the state of an account that is about to request a token.

    Raises Unavailable while the installation is held.
    """
    row = _STATE.run(connection, {"account": account}).one()
    if row.is_held:
        raise Unavailable(HELD)
    return AccountState(row.state)


def set_hold(connection: Connection, act: Act) -> bool:
    """Hold the installation for the reason the act gives. False if it was held already; the existing hold stays."""
    if not insert_new(connection, holds, _row(act)):
        return False
    audit.record_act(connection, "hold.set", AsWhom(tenant=None), act, outcome="held")
    return True


def hold_anew(connection: Connection, act: Act) -> Hold | None:
    """Hold the installation for this reason and return the hold that it replaces, if any.

    For a caller that records the hold as part of another act. Without the replacement, the person who set the earlier
    hold would end this one by releasing theirs.
    """
    was = find_hold(connection)
    connection.execute(delete(holds))
    insert_new(connection, holds, _row(act))
    return was


def last_release(connection: Connection, *, after: int) -> datetime | None:
    """Return when the last hold was released after ledger number *after*; None if none was."""
    rows = audit_rows.c
    released = select(func.max(rows.at)).where(rows.tenant_id == "", rows.number > after, rows.kind == _RELEASED)
    last: datetime | None = connection.execute(released).scalar_one()
    return last


def release_hold(connection: Connection, act: Act) -> Hold | None:
    """End the hold and return it; None if nothing was held."""
    was = find_hold(connection)
    if was is None or connection.execute(delete(holds)).rowcount != 1:
        return None
    detail = {"since": was.since.isoformat(), "held_by": was.by, "held_why": was.why}
    audit.record_act(connection, _RELEASED, AsWhom(tenant=None), act, outcome="released", detail=detail)
    return was


def _row(act: Act) -> dict[str, Any]:
    return {"id": 1, "since": act.now, "by": act.by[:200], "why": act.why or ""}
