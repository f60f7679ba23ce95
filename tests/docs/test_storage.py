"""docs/reference/storage.md lists every table and every Redis key."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Table

from identity import api_key_tables, audit_tables, console_tables, withdrawal_table
from identity import tables as of_identity
from identity.capability import tables as capability_tables
from identity.lock import RefreshLock
from identity.refresh_budget import RefreshBudget
from pipeline import approval_tables, revocation_tables
from pipeline import tables as of_pipeline
from pipeline.celery import QUEUES, BrokerSettings
from tests.docs.pages import named, page, rows, section

WHO, HOW = "Who may act (`identity/tables.py`)", "How work moves (`pipeline/tables.py`)"
LOCK_TTL: timedelta = RefreshBudget().lock_ttl


@pytest.mark.parametrize("heading", [WHO, HOW])
def test_every_table_is_listed_where_it_is_declared(heading: str) -> None:
    declared = {
        WHO: vars(of_identity)
        | vars(api_key_tables)
        | vars(audit_tables)
        | vars(console_tables)
        | vars(withdrawal_table)
        | vars(capability_tables),
        HOW: vars(of_pipeline) | vars(revocation_tables) | vars(approval_tables),
    }[heading].values()
    tables = {value.name for value in declared if isinstance(value, Table)}
    assert sorted(named(section(page("reference/storage.md"), heading))) == sorted(tables)


def test_the_two_lists_are_the_whole_schema() -> None:
    listed = [name for heading in (WHO, HOW) for name in named(section(page("reference/storage.md"), heading))]
    assert sorted(listed) == sorted(of_identity.metadata.tables)


def test_the_redis_keys_are_those_the_code_makes() -> None:
    cells = " ".join(row[0] for row in rows(section(page("reference/storage.md"), "Redis or Valkey")))
    lock = RefreshLock(None, ttl=LOCK_TTL, token=lambda: "")
    keys = {f"{BrokerSettings(url='redis://').key_prefix}{queue}" for queue in QUEUES}
    assert keys | {lock._key("ACCOUNT"), lock._channel("ACCOUNT")} <= set(
        cells.replace("`", "").replace(",", "").split()
    )


def test_the_refresh_lock_lives_as_long_as_is_said() -> None:
    (row,) = [row for row in rows(section(page("reference/storage.md"), "Redis or Valkey")) if "refresh:" in row[0]]
    assert row[-1].startswith(f"{LOCK_TTL.total_seconds():.0f} s")
