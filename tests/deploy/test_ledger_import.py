"""`db import-sqlite`: a ledger moves from SQLite to PostgreSQL whole or not at all, and one of the two goes on."""

from __future__ import annotations

import fcntl
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Connection,
    Integer,
    LargeBinary,
    Table,
    Text,
    cast,
    create_engine,
    inspect,
    select,
    text,
)

from deploy import supervisor
from deploy.cli import ledger_import
from deploy.cli.output import Output
from identity.hold_tables import holds
from identity.sql.columns import Instant
from identity.sql.metadata import ledger_numbers
from identity.sql.store import CommitUnknown
from pipeline.db.postgresql import PostgresqlDatabase
from pipeline.migrations import sqlite_import
from pipeline.migrations.declared import metadata
from tests.deploy.conftest import Cli, told
from tests.servers.postgres import Postgres

TABLES = [table for table in metadata.sorted_tables if table is not ledger_numbers]
URL = "ASWHOM_DATABASE_URL"
#: Why the old ledger is held.
BEGUN = re.compile(r"its move to postgresql://\S+ was begun: release this hold only if the move is given up")


@pytest.fixture
def target(postgres: Postgres) -> Iterator[str]:
    """An empty database, as SQLAlchemy is told of it."""
    name = postgres.create_database()
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def to(target: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(URL, target)
    return target


def _rows(url: str, table: Table) -> list[tuple[Any, ...]]:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            stored = (cast(c, Text) if isinstance(c.type, JSON) else c for c in table.c)  # null is not NULL
            return sorted(map(tuple, connection.execute(select(*stored))), key=repr)
    finally:
        engine.dispose()


def _tables(url: str) -> list[str]:
    engine = create_engine(url)
    try:
        return inspect(engine).get_table_names()
    finally:
        engine.dispose()


def _sqlite(cli: Cli) -> str:
    return f"sqlite:///{cli.data_dir / 'ledger.db'}"


def _fill(connection: Connection, *, rows: int) -> None:
    """Rows for every column of every table: each kind of value, NULL where it may be, and JSON's null."""
    number = count(1)
    made: dict[str, list[Any]] = {}
    for table in TABLES:
        for place in range(rows if table is not holds else 0):  # there is one hold, or none
            row: dict[str, Any] = {}
            for column in table.c:
                if column.foreign_keys:
                    (key,) = column.foreign_keys
                    row[column.name] = made[key.target_fullname][place]
                elif column.nullable and place % 3 == 0:
                    row[column.name] = JSON.NULL if isinstance(column.type, JSON) and place % 2 else None
                else:
                    row[column.name] = _value(column.type, next(number))
            connection.execute(table.insert().values(row))
            for column in table.c:
                made.setdefault(f"{table.name}.{column.name}", []).append(row[column.name])
    connection.execute(ledger_numbers.update().values(value=next(number) + 2**40))


def _value(kind: Any, number: int) -> object:
    match kind:
        case Instant():
            return datetime(2026, 11, 30, tzinfo=UTC) + timedelta(microseconds=number)
        case JSON():
            return {"é": [number, None, "\u2028", 0.1], "b": {"a": 2**60}}
        case Boolean():
            return number % 2 == 0
        case BigInteger():
            return 2**40 + number
        case Integer():
            return number
        case LargeBinary():
            return bytes(range(256)) + number.to_bytes(4, "big")
    return f"ü{number}"[: kind.length]


def test_every_row_of_every_table_comes_over_as_it_is(cli: Cli, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_import, "_PAGE", 2)
    engine = create_engine(_sqlite(cli))
    with engine.begin() as connection:
        _fill(connection, rows=7)
    engine.dispose()
    progress = Counter[str]()

    @contextmanager
    def count(_output: Output, doing: str) -> Iterator[Callable[[str, int], None]]:
        def tell(what: str, number: int) -> None:
            assert number <= 2, "it is told page by page"
            progress[what] += number

        yield tell

    monkeypatch.setattr(Output, "count", count)
    said = cli.json("db", "import-sqlite", "--yes")
    assert said["held"]
    assert said["rows"] == sum(len(_rows(_sqlite(cli), table)) for table in TABLES)
    assert progress["jobs"] == progress["jobs (comparing)"] == 7
    assert progress.total() == 2 * said["rows"]
    for table in set(TABLES) - {holds}:
        there, was = _rows(to, table), _rows(_sqlite(cli), table)
        ours = [row for row in there if row not in was] if table.name == "audit" else []
        assert [row for row in there if row not in ours] == was, table.name
        assert len(ours) == (table.name == "audit")  # the record of the import


def test_work_goes_on_in_the_new_ledger_alone_and_its_revocations_stand(
    cli: Cli, to: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(URL)
    for tenant in ("acme", "globex"):
        cli.json("tenants", "add", tenant)
    cli.json("revoke", "tenant", "globex", "--yes", "--reason", "left")
    (before,) = cli.json("revocations", "list")
    monkeypatch.setenv(URL, to)
    said = cli("db", "import-sqlite", "--yes").output
    assert "were moved" in said
    assert "aswhom hold release" in said
    (moved,) = cli.json("audit", "search", "--kind", "ledger.imported")
    assert moved["detail"]["from"] == str(cli.data_dir / "ledger.db")
    asked = cli("hold", "release").output
    assert f"(moved here from {cli.data_dir / 'ledger.db'}: release it once `aswhom doctor` is content)" in asked
    assert cli.json("revocations", "list") == [before]
    assert cli.json("hold", "release", "--yes")["changed"]
    cli.json("revoke", "tenant", "acme", "--yes")
    after = max(revocation["number"] for revocation in cli.json("revocations", "list"))
    assert after > moved["number"] > before["number"]
    assert told(cli, "ledger") == [("ok", "reachable and written to, at this version's tables")]
    monkeypatch.delenv(URL)
    assert BEGUN.fullmatch(cli.json("hold", "show")["why"])
    assert cli.json("revocations", "list") == [before]


def test_a_hold_of_the_old_ledger_is_replaced_and_told(cli: Cli, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL)
    cli.json("hold", "set", "--why", "maintenance")
    monkeypatch.setenv(URL, to)
    assert (
        "nothing goes out (maintenance). The hold of the move takes its place"
        in cli("db", "import-sqlite", "--yes").stderr
    )
    monkeypatch.delenv(URL)
    assert BEGUN.fullmatch(cli.json("hold", "show")["why"])
    _, of_the_move = sorted(cli.json("audit", "search", "--kind", "hold.set"), key=lambda record: record["number"])
    assert of_the_move["detail"]["held_before"].endswith("nothing goes out (maintenance)")


def test_a_rehearsal_of_the_move_with_a_restored_backup_stays_one(
    cli: Cli, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(URL)
    cli.json("db", "restored", "--why", "a drill", "--yes")
    monkeypatch.setenv(URL, to)
    cli.json("db", "import-sqlite", "--yes")
    assert "A DRILL IS NEVER RELEASED" in cli("hold", "release").output
    cli.json("hold", "release", "--yes")
    cli.json("hold", "set", "--why", "a person's")
    assert "A DRILL IS NEVER RELEASED" not in cli("hold", "release").output


def test_a_move_whose_end_nobody_saw_is_found_by_the_repeated_command(
    cli: Cli, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = PostgresqlDatabase.write

    def write_unseen(*words: Any, **options: Any) -> Any:
        write(*words, **options)
        raise CommitUnknown("the connection was lost")

    with monkeypatch.context() as patched:
        patched.setattr(PostgresqlDatabase, "write", write_unseen)
        lost = cli("db", "import-sqlite", "--yes")
    assert lost.exit_code == 1
    assert "stays held: repeat this command (if the move was done after all, it says so)" in lost.stderr
    (moved,) = cli.json("audit", "search", "--kind", "ledger.imported")
    rows = moved["detail"]["rows"]
    path = str(cli.data_dir / "ledger.db")
    for held in (True, False):
        with psycopg.connect(to.replace("+psycopg", ""), application_name="aswhom-web"):  # the processes are back
            said = cli.json("db", "import-sqlite", "--yes")
        assert (said["rows"], said["from"], said["held"]) == (rows, path, held)
        cli.json("hold", "release", "--yes")
    assert "The new ledger was released since. Move" in cli("db", "import-sqlite", "--yes").stdout
    assert len(cli.json("audit", "search", "--kind", "ledger.imported")) == 1
    monkeypatch.delenv(URL)
    cli.json("hold", "release", "--yes")  # the move is given up, so the ledger goes on
    monkeypatch.setenv(URL, to)
    assert "is not empty" in cli.json("db", "import-sqlite", "--yes", code=1)["message"]


def test_an_import_that_another_one_overtook_finds_its_rows(cli: Cli, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def overtake(_question: str, *, yes: bool) -> None:
        monkeypatch.setattr(ledger_import, "confirm", lambda _question, yes: None)
        rows.append(cli.json("db", "import-sqlite", "--yes")["rows"])

    rows: list[int] = []
    monkeypatch.setattr(ledger_import, "confirm", overtake)
    rows.append(cli.json("db", "import-sqlite", "--yes")["rows"])
    assert rows[0] == rows[1]
    assert len(cli.json("audit", "search", "--kind", "ledger.imported")) == 1


def test_a_command_that_is_broken_off_says_that_the_old_ledger_is_held(
    cli: Cli, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(sqlite_import, "_copy_all", interrupt)
    broken_off = cli("db", "import-sqlite", "--yes")
    assert broken_off.exit_code == 1
    assert "stays held: repeat this command" in broken_off.stderr
    assert _tables(to) == [], "the database is as empty as before"


def test_nothing_is_moved_while_a_process_has_the_new_ledger(
    cli: Cli, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(to.replace("+psycopg", ""), application_name="aswhom-web"):
        said = cli.json("db", "import-sqlite", "--yes", code=1)["message"]
    assert "is to be moved to postgresql://" in said
    assert "sessions of processes are on it: aswhom-web" in said
    monkeypatch.delenv(URL)
    assert not cli.json("hold", "show")["held"]


def test_no_process_writes_to_the_new_ledger_before_it_has_all_rows(
    cli: Cli, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_all = sqlite_import._copy_all
    refused: list[str] = []

    def copy_beside_a_process(*arguments: Any) -> int:
        with psycopg.connect(to.replace("+psycopg", ""), options="-c lock_timeout=10ms") as process:
            for table in TABLES:
                with pytest.raises(psycopg.errors.LockNotAvailable), process.transaction():
                    process.execute(f"delete from {table.name}")
                refused.append(table.name)
        return copy_all(*arguments)

    cli.json("db", "upgrade")
    monkeypatch.setattr(sqlite_import, "_copy_all", copy_beside_a_process)
    assert cli.json("db", "import-sqlite", "--yes")["held"]
    assert len(refused) == len(TABLES)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("update tenants set name = printf('%.*c', 300, 'x')", "PostgreSQL refuses a row of tenants between the"),
        ("update tenants set name = 'a' || char(0)", "NUL"),
        (
            (
                "insert into capability_audiences (id, uri, algorithm, passes_to, secret_sha256, created_at) "
                "values ('a', hex(randomblob(9000)), 'a', '[]', 'a', 1)"
            ),
            "PostgreSQL refuses a row of capability_audiences",
        ),
        ("insert into agents (id, tenant_id, name, created_at) values ('a', 'nobody', 'a', 1)", "is damaged"),
    ],
)
def test_a_row_that_cannot_be_taken_leaves_nothing_there_and_is_named(
    cli: Cli, to: str, monkeypatch: pytest.MonkeyPatch, fault: str, says: str
) -> None:
    monkeypatch.delenv(URL)
    cli.json("tenants", "add", "acme")
    with closing(sqlite3.connect(cli.data_dir / "ledger.db")) as ledger:
        ledger.execute("pragma foreign_keys = off")
        ledger.execute(fault)
        ledger.commit()
    monkeypatch.setenv(URL, to)
    refused = cli("db", "import-sqlite", "--yes")
    assert says in refused.stderr
    assert _tables(to) == [], "the database is as empty as before"
    is_held = "stays held: repeat this command" in refused.stderr
    monkeypatch.delenv(URL)
    assert cli.json("hold", "show")["held"] is is_held is ("is damaged" not in says)
    monkeypatch.setenv(URL, to)
    with closing(sqlite3.connect(cli.data_dir / "ledger.db")) as ledger:
        ledger.execute("update tenants set name = 'acme'")
        ledger.execute("delete from agents")
        ledger.execute("delete from capability_audiences")
        ledger.commit()
    assert cli.json("db", "import-sqlite", "--yes")["held"]  # the database was still empty


def test_a_copy_that_is_not_the_original_is_not_kept(cli: Cli, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL)
    cli.json("tenants", "add", "acme")
    monkeypatch.setenv(URL, to)
    cli.json("db", "upgrade")
    engine = create_engine(to)
    with engine.begin() as connection:
        does = "begin new.name := new.name || '!'; return new; end"
        connection.execute(text(f"create function alter_it() returns trigger language plpgsql as $$ {does} $$"))
        connection.execute(text("create trigger it before insert on tenants for each row execute function alter_it()"))
    assert "the copy of tenants is not the original" in cli.json("db", "import-sqlite", "--yes", code=1)["message"]
    with engine.begin() as connection:
        connection.execute(text("drop trigger it on tenants"))
        does = "begin raise exception 'no tenant today'; end"
        connection.execute(
            text(f"create or replace function alter_it() returns trigger language plpgsql as $$ {does} $$")
        )
        connection.execute(text("create trigger it before insert on tenants for each row execute function alter_it()"))
    said = cli.json("db", "import-sqlite", "--yes", code=1)
    assert said["error"] == "Misconfigured"
    assert "PostgreSQL refuses a row of tenants between the keys ('acme',) and ('acme',): no tenant" in said["message"]
    with engine.begin() as connection:
        connection.execute(text("drop trigger it on tenants"))
    engine.dispose()
    assert cli.json("db", "import-sqlite", "--yes")["held"]
    assert [tenant["name"] for tenant in cli.json("tenants", "list")] == ["acme"]


def test_what_is_written_meanwhile_is_not_left_behind(cli: Cli, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_all = sqlite_import._copy_all

    def copy_while_written(*arguments: Any) -> int:
        copied = copy_all(*arguments)
        with closing(sqlite3.connect(cli.data_dir / "ledger.db")) as ledger:
            ledger.execute("update ledger_numbers set value = value + 1")
            ledger.commit()
        return copied

    with monkeypatch.context() as patched:
        patched.setattr(sqlite_import, "_copy_all", copy_while_written)
        assert "still writes to the old ledger" in cli.json("db", "import-sqlite", "--yes", code=1)["message"]
    assert cli.json("db", "import-sqlite", "--yes")["held"]


@pytest.mark.parametrize(
    ("there", "says"),
    [
        ("create table alembic_version as select '0042'::varchar(32) as version_num", "has tables at revision 0042"),
        ("create table jobs (id int)", "another program has a table jobs in it"),
    ],
)
def test_a_database_of_something_else_is_neither_upgraded_nor_filled(
    cli: Cli, to: str, monkeypatch: pytest.MonkeyPatch, there: str, says: str
) -> None:
    engine = create_engine(to)
    with engine.begin() as connection:
        connection.execute(text(there))
    assert says in cli.json("db", "import-sqlite", "--yes", code=1)["message"]
    with engine.begin() as connection:
        assert len(inspect(connection).get_table_names()) == 1
    engine.dispose()
    monkeypatch.delenv(URL)
    assert not cli.json("hold", "show")["held"]


def test_a_database_that_lacks_characters_is_refused(
    cli: Cli, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "latin"
    with postgres.connect() as server:
        server.execute(f"create database {name} encoding 'LATIN1' locale 'C' template template0")
    monkeypatch.setenv(URL, postgres.url(name))
    said = cli.json("db", "import-sqlite", "--yes", code=1)["message"]
    postgres.drop_database(name)
    assert said.startswith("the database's encoding is LATIN1")


def test_a_role_that_may_not_make_tables_is_told_which_may(
    cli: Cli, target: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = f"weak_{target.partition('@/')[2].partition('?')[0]}"
    with postgres.connect() as server:
        server.execute(f"create role {role}")
    monkeypatch.setenv(URL, f"{target}&options=-c%20role%3D{role}")
    for command, right in (
        (("db", "import-sqlite", "--yes"), "to make tables in the schema public"),
        (("db", "upgrade"), "permission denied for schema public"),
    ):
        said = cli.json(*command, code=1)
        assert said["error"] == "Misconfigured"
        assert f"lacks a right ({right})" in said["message"]
    monkeypatch.delenv(URL)
    assert not cli.json("hold", "show")["held"]
    with postgres.connect() as server:
        server.execute(f"drop role {role}")


def test_what_cannot_be_moved_is_left_as_it_was(cli: Cli, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (cli.data_dir / supervisor.RUN).mkdir(exist_ok=True)
    with (cli.data_dir / supervisor.LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "`aswhom up` runs" in cli.json("db", "import-sqlite", "--yes", code=1)["message"]
    assert cli("db", "import-sqlite").exit_code == 2  # nobody said yes
    monkeypatch.delenv(URL)
    assert "names none" in cli.json("db", "import-sqlite", "--yes", code=1)["message"]
    assert not cli.json("hold", "show")["held"]
