"""A server of PostgreSQL that is not there, does not answer, or only reads."""

from __future__ import annotations

import socket
import threading
from contextlib import closing, suppress
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import make_url, text

from identity.errors import Unavailable
from pipeline.db.database import DatabaseSettings, open_database
from tests.ledger.writes import select_one
from tests.servers.postgres import Postgres


def test_a_server_that_takes_connections_and_never_answers_is_unavailable_after_one_try() -> None:
    tried: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):  # the test is over
                while True:
                    tried.append(listener.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        url = f"postgresql+psycopg://aswhom@127.0.0.1:{listener.getsockname()[1]}/aswhom?connect_timeout=2"
        with closing(open_database(DatabaseSettings(url=url, turn_timeout=timedelta(seconds=1)))) as database:
            for ask in (database.write, database.read):
                with pytest.raises(Unavailable):
                    ask(lambda c: None)
        listener.shutdown(socket.SHUT_RDWR)
    for one in tried:
        one.close()
    assert len(tried) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"database": "aswhon"}, 'FATAL: database "aswhon" does not exist'),
        ({"username": "nobody-there"}, 'FATAL: .*"nobody-there"'),
        ({"host": "127.0.0.1", "port": 1}, r"127\.0\.0\.1:1: .*Connection refused"),
        ({"host": "no-such-host.invalid", "port": 7}, r"no-such-host\.invalid:7: .*no-such-host"),
    ],
)
def test_a_wrong_url_is_explained_in_the_servers_words_and_without_the_password(
    postgres: Postgres, change: dict[str, Any], says: str
) -> None:
    url = make_url(postgres.url())
    url = url.set(query={} if "host" in change else url.query, password="hunter2", **change)
    settings = DatabaseSettings(url=url.render_as_string(hide_password=False), turn_timeout=timedelta(0))
    with closing(open_database(settings)) as database:
        for ask in (database.write, database.read):
            with pytest.raises(Unavailable, match=says) as caught:
                ask(lambda c: None)
            assert "ASWHOM_DATABASE_URL" in str(caught.value)
            assert "hunter2" not in str(caught.value)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("attributes", "says", "reads"),
    [("", "session is read-only", False), ("&target_session_attrs=any", "the ledger's server is read-only", True)],
)
def test_a_server_that_turned_read_only_is_unavailable_and_is_connected_to_anew_until_it_is_not(
    postgres: Postgres, database_url: str, attributes: str, says: str, reads: bool
) -> None:
    """A pool would keep the connections to a standby for ever: nothing is broken about them."""
    settings = DatabaseSettings(url=database_url + attributes, turn_timeout=timedelta(seconds=1))
    insert_one = text("insert into kept values (1)")

    def turn(read_only: str) -> None:
        with postgres.connect() as connection:
            name = make_url(database_url).database
            connection.execute(f'alter database "{name}" set default_transaction_read_only = {read_only}'.encode())

    with closing(open_database(settings)) as database:
        database.write(lambda c: c.execute(text("create table kept (it integer)")))
        turn("on")
        # That is for whoever connects from now on, and a standby is so for those that are connected.
        database.write(lambda c: c.exec_driver_sql("set session characteristics as transaction read only"))
        for _ in range(2):
            if reads:
                assert database.read(select_one) == 1
            with pytest.raises(Unavailable, match=says):
                database.write(lambda c: c.execute(insert_one))
        turn("off")
        database.write(lambda c: c.execute(insert_one))
        assert database.read(lambda c: c.execute(text("select it from kept")).scalars().all()) == [1]
