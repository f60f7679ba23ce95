"""Operator actions on the keys that sign capabilities, each with its audit row."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from identity.audit import Act
from identity.capability import keys
from identity.capability.keys import NewKey
from pipeline.desk.changes import record_change


def rotate(connection: Connection, new: NewKey, act: Act) -> datetime:
    """Publish *new*, and return when it begins to sign. Raises BadInput while another one is waiting to."""
    use_from = keys.rotate(connection, new, now=act.now)
    detail = {"key": new.kid, "algorithm": str(new.algorithm), "use_from": use_from.isoformat()}
    record_change(connection, "capability_key.rotated", None, detail, act)
    return use_from


def withdraw(connection: Connection, kid: str, new: NewKey, act: Act) -> str | None:
    """Stop accepting and publishing a key. Returns its successor, if it was signing. Raises BadInput."""
    successor = new.kid if keys.withdraw(connection, kid, new, now=act.now) else None
    detail = {"key": kid, "successor": successor}
    record_change(connection, "capability_key.withdrawn", None, detail, act)
    return successor
