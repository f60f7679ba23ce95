"""docs/reference/storage.md lists every table and every Redis key."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Table

from identity import hold_tables
from identity import tables as of_identity
from identity.agents import tables as api_key_tables
from identity.audit import tables as of_audit
from identity.capability import tables as capability_tables
from identity.connect_sessions import tables as of_connect
from identity.console import tables as of_console
from identity.minting import tables as mint_tables
from identity.refresh import tables as of_refresh
from identity.refresh.lock import RefreshLock
from identity.sql import metadata as of_sql
from identity.sql.metadata import metadata
from identity.token_endpoint.budget import RefreshBudget
from identity.withdrawals import tables as of_withdrawals
from pipeline import tables as of_pipeline
from pipeline.approvals import tables as of_approvals
from pipeline.broker.celery import QUEUES, BrokerSettings
from pipeline.revocation import tables as of_revocation
from tests.docs.pages import named, page, rows, section

WHO, HOW = "Who may act (`identity/tables.py`)", "How work moves (`pipeline/tables.py`)"
LOCK_TTL: timedelta = RefreshBudget().lock_ttl


@pytest.mark.parametrize("heading", [WHO, HOW])
def test_every_table_is_listed_where_it_is_declared(heading: str) -> None:
    declared = {
        WHO: vars(of_sql)
        | vars(of_identity)
        | vars(api_key_tables)
        | vars(hold_tables)
        | vars(mint_tables)
        | vars(of_audit)
        | vars(of_connect)
        | vars(of_console)
        | vars(of_refresh)
        | vars(of_withdrawals)
        | vars(capability_tables),
        HOW: vars(of_pipeline) | vars(of_revocation) | vars(of_approvals),
    }[heading].values()
    tables = {value.name for value in declared if isinstance(value, Table)}
    assert sorted(named(section(page("reference/storage.md"), heading))) == sorted(tables)


def test_the_two_lists_are_the_whole_schema() -> None:
    listed = [name for heading in (WHO, HOW) for name in named(section(page("reference/storage.md"), heading))]
    assert sorted(listed) == sorted(metadata.tables)


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
