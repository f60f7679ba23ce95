"""`/readyz` of a ledger that can be read and not written: ready means that a delivery could be accepted."""

from __future__ import annotations

import secrets
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import make_url, text

from identity.errors import Unavailable
from identity.ids import Ids
from identity.keys.vault import Vault
from pipeline.db.database import DatabaseSettings, open_database
from pipeline.deliveries.intake import Intake
from pipeline.migrations import upgrade


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_web_whose_server_is_read_only_is_not_ready(database_url: str) -> None:
    settings = DatabaseSettings(url=f"{database_url}&target_session_attrs=any", turn_timeout=timedelta(seconds=1))
    read_only = f'alter database "{make_url(database_url).database}" set default_transaction_read_only = on'
    with closing(open_database(settings)) as database:
        web = Intake(database, Vault({1: bytes(32)}, secrets.token_bytes), Ids(), clock=lambda: datetime.now(UTC))
        upgrade(database)
        web.ready()
        database.write(lambda c: c.execute(text(read_only)))
        database.engine.dispose()  # for whoever connects from now on
        with pytest.raises(Unavailable, match="the ledger's server is read-only"):
            web.ready()
