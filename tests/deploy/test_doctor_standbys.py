"""`aswhom doctor` says when a PostgreSQL waits for standbys that it has not, or has no other of."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from deploy.checkup import postgresql
from deploy.checkup.finding import State
from deploy.installation import Installation
from deploy.settings import Settings
from pipeline.ledger.rehearsal import rehearse
from tests.deploy.conftest import Cli
from tests.servers.postgres import Postgres
from tests.servers.postgres import postgres as run_postgres
from tests.waiting import eventually


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """Whose standbys are nobody else's."""
    with run_postgres() as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("named", "standbys", "said"),
    [
        ("", [], None),
        ("", ["async"], None),
        ("ANY 1 (b, c)", ["quorum", "quorum"], None),
        ("b, c", ["sync", "potential", "async"], None),
        ("ANY 1 (b)", ["quorum"], "the death of one stops every write"),
        ("FIRST 2 (b, c)", ["sync", "sync"], "the death of one stops every write"),
        ("b", ["async"], "every write hangs"),
        ("any 2 (*)", ["quorum"], "every write hangs"),
        ("ANY 1 (b, c)", [None, None], "grant pg_monitor"),
    ],
)
def test_there_is_one_standby_more_than_is_waited_for(named: str, standbys: list[str | None], said: str | None) -> None:
    found = [one.says for one in postgresql._of_standbys(named, standbys)]
    assert [said in one for one in found if said] == ([True] if said else [])
    assert bool(found) == bool(said)


def test_writes_that_wait_for_a_standby_are_told_of_where_nothing_else_is_red(cli: Cli, own_postgres: Postgres) -> None:
    from deploy.upgrade import migrate

    url = own_postgres.url(own_postgres.create_database())
    settings = Settings(data_dir=cli.data_dir, database_url=url)  # type: ignore[arg-type]
    migrate(settings)
    with own_postgres.connect() as admin, Installation(settings) as at:
        admin.execute("alter system set synchronous_standby_names = 'b'")
        admin.execute("select pg_reload_conf()")
        at.unchecked_ledger.engine.dispose()
        add = text("insert into tenants (id, name, created_at) values ('acme', 'Acme', 0)")
        writing = threading.Thread(target=at.write, args=(lambda c: c.execute(add).rowcount,))
        writing.start()
        waits = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'"
        eventually(lambda: admin.execute(waits).fetchone() == (1,))
        assert list(at.unchecked_ledger.in_commit()) == [writing.ident]  # for whom no worker leaves
        at.write(rehearse)  # as /readyz does
        found = [one for one in postgresql.server(at) if "every write hangs" in one.says]
        admin.execute("alter system reset synchronous_standby_names")
        admin.execute("select pg_reload_conf()")
        writing.join(30)
        assert at.unchecked_ledger.in_commit() == {}
    assert [one.state for one in found] == [State.WRONG]
    assert not writing.is_alive()
