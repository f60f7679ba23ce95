"""The process list and what supervisord is told to run are the same."""

from __future__ import annotations

import configparser
import errno
import logging
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import pytest

from deploy import procfile, supervisor, up, valkey
from deploy.process import of_its_tables, open_runtime
from deploy.procfile import Process
from deploy.settings import load
from deploy.supervisor import Supervisor
from identity.errors import Misconfigured, Unavailable
from tests.deploy.conftest import Cli
from tests.deploy.running import ASWHOM
from tests.servers.postgres import Emptied, Postgres
from tests.servers.process import end, free_port, start, start_python, wait_until
from tests.system.rig import WARM
from tests.waiting import PATIENCE, eventually

ROOT = Path(__file__).parents[2]
_SOCKET = ".s.PGSQL.5432"


def _programs(text: str) -> dict[str, list[str]]:
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    found = {}
    for section in parser.sections():
        if section.startswith("program:"):
            command = shlex.split(parser[section]["command"].replace("%%", "%"))
            found[section.removeprefix("program:")] = (
                command[command.index("--") + 1 :] if supervisor.tied() else command
            )
    return found


def test_supervisord_runs_the_process_list() -> None:
    text = supervisor.configuration([("aswhom", up.processes(load()))], patience=timedelta(seconds=30))
    listed = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    ran = _programs(text)
    assert sorted(ran) == sorted([*(listed.keys() - {"worker"}), "worker-1", "worker-2"])
    for name, command in ran.items():
        kind = name.partition("-")[0]
        assert [re.sub(rf"^{name}@", f"{kind}@", word) for word in command] == shlex.split(listed[kind]), name
    hostnames = {word for command in ran.values() for word in command if word.endswith("@%h")}
    assert len(hostnames) == 3


def test_a_process_may_stop_for_longer_than_its_longest_call() -> None:
    from pipeline.execution.services import StepSettings

    assert up.patience(load()) > StepSettings().call_deadline
    slow = load(call_deadline=timedelta(minutes=2))
    assert up.patience(slow) > timedelta(minutes=2)
    late = load(send_within=timedelta(seconds=30))
    assert up.patience(late) > timedelta(seconds=30) + StepSettings().call_deadline


def test_prometheus_is_told_of_every_process_once() -> None:
    told = [(entry["labels"]["process"], entry["targets"]) for entry in up.targets(load())]
    assert [name for name, _ in told] == [process.name for process in up.processes(load())]
    assert len({tuple(targets) for _, targets in told}) == len(told)


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_address_of_ipv6_is_told_to_prometheus_as_one(host: str) -> None:
    told = {entry["labels"]["process"]: entry["targets"] for entry in up.targets(load(metrics_host=host))}
    assert told["beat"] == [f"[::1]:{load().metrics_port('beat')}"]


@pytest.mark.parametrize("number", [1, 4, 10])
def test_as_many_workers_run_as_are_asked_for_each_with_a_port_of_its_own(number: int) -> None:
    settings = load(workers=number)
    started = [process.name for process in up.processes(settings) if process.name.startswith("worker")]
    assert started == [f"worker-{n}" for n in range(1, number + 1)]
    targets = [target for entry in up.targets(settings) for target in entry["targets"]]
    assert len(targets) == len(set(targets)) == number + 4


@pytest.mark.parametrize("number", [0, 11])
def test_no_workers_or_more_than_have_ports_are_refused(number: int) -> None:
    with pytest.raises(Misconfigured, match="ASWHOM_WORKERS"):
        load(workers=number)


def test_words_that_supervisord_would_expand_are_kept() -> None:
    odd = Process(name="odd", command=("echo", "100%", "a b", "x'y"), environment={"K": "v w"})
    (command,) = _programs(supervisor.configuration([("g", [odd])], patience=timedelta(seconds=1))).values()
    assert command[-3:] == ["100%", "a b", "x'y"]


def test_everything_stops_when_one_process_cannot_be_kept_running(tmp_path: Path) -> None:
    (tmp_path / supervisor.RUN).mkdir()
    broken = Process(name="broken", command=("false",))
    lasting = Process(name="lasting", command=("sleep", "600"))
    text = supervisor.configuration([("g", [broken, lasting])], patience=timedelta(seconds=5))
    (tmp_path / supervisor.CONFIGURATION).write_text(text)
    log = tmp_path / "log"
    environment = {**os.environ, "PATH": supervisor.scripts_first(os.environ["PATH"]), "ASWHOM_LOG_FORMAT": "json"}
    running = Supervisor(tmp_path, environment, log=log)
    assert running.wait() == 0  # what supervisord says of it
    assert running.gave_up() == "broken"
    assert '"action": "process.given_up"' in log.read_text()


def test_a_term_that_reaches_supervisord_and_all_below_at_once_loses_no_last_words(tmp_path: Path) -> None:
    (tmp_path / supervisor.RUN).mkdir()
    (tmp_path / "slow.py").write_text(
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), print('last words'), exit()))\n"
        "print('is up')\n"
        "while True: signal.pause()\n"
    )
    child = Process(name="slow", command=("python", "-u", "slow.py"))
    text = supervisor.configuration([("g", [child])], patience=timedelta(seconds=20))
    (tmp_path / supervisor.CONFIGURATION).write_text(text)
    log = tmp_path / "log"
    environment = {**os.environ, "PATH": supervisor.scripts_first(os.environ["PATH"])}
    running = Supervisor(tmp_path, environment, log=log)
    eventually(lambda: log.exists() and "is up" in log.read_text(), "the child is up", log=log)
    for pid in _below(os.getpid(), of=tmp_path):
        os.kill(pid, signal.SIGTERM)
    assert running.wait() == 0
    assert running.gave_up() is None
    assert "last words" in log.read_text()


def _below(parent: int, *, of: Path) -> Iterator[int]:
    """The processes that *parent* started and that work in *of* or write its log, and all below them."""
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    for pid in [int(word) for children in tasks for word in children.read_text().split()]:
        files = [Path(f"/proc/{pid}/cwd"), Path(f"/proc/{pid}/fd/1")]
        if any(file.exists() and file.readlink().is_relative_to(of) for file in files):
            yield pid
            yield from _below(pid, of=of)


def test_everything_stops_though_the_disk_takes_no_word_of_why(tmp_path: Path) -> None:
    (tmp_path / supervisor.RUN).mkdir()
    text = supervisor.configuration(
        [("g", [Process(name="broken", command=("false",))])], patience=timedelta(seconds=5)
    )
    (tmp_path / supervisor.CONFIGURATION).write_text(text)
    environment = {**os.environ, "PATH": supervisor.scripts_first(os.environ["PATH"])}
    running = Supervisor(tmp_path, environment, log=tmp_path / "log")
    (tmp_path / supervisor.FATAL_FILE).mkdir()  # the tests may run as root, who can write anywhere
    assert running.wait() == 0


def test_a_number_that_was_given_to_another_process_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / supervisor.RUN).mkdir()
    assert supervisor.still_running(tmp_path) is None
    (tmp_path / supervisor.PID_FILE).write_text(f"{os.getpid()}\n")
    assert supervisor.still_running(tmp_path) is None


def test_the_supervisor_of_another_data_directory_is_not_waited_for(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for directory in (here, there):
        (directory / supervisor.RUN).mkdir(parents=True)
    words = [sys.executable, "-c", "input()", "-c", str(supervisor.CONFIGURATION)]
    with subprocess.Popen(words, cwd=there, stdin=subprocess.PIPE) as another:
        for directory in (here, there):
            (directory / supervisor.PID_FILE).write_text(f"{another.pid}\n")
        assert supervisor.still_running(here) is None
        assert supervisor.still_running(there) == another.pid
        another.kill()


@pytest.mark.parametrize("name", ["web", "worker", "revocations", "housekeeping", "beat"])
def test_a_wrong_setting_ends_each_process_with_one_line_and_the_code_for_it(
    name: str, cli: Cli, tmp_path: Path
) -> None:
    module, arguments = _begun(name)
    environment = {
        "PATH": os.environ["PATH"],
        "ASWHOM_DATA_DIR": str(cli.data_dir),
        "ASWHOM_WORKFLOWS": "tasks.nobody",
    }
    log = tmp_path / "log"
    started = start_python(module, *arguments, log=log, environment=environment, warm=WARM)
    try:
        assert started.wait(60) == 78
    finally:
        end(started, signal.SIGKILL)
    (line,) = log.read_text().splitlines()
    assert "ASWHOM_WORKFLOWS" in line


@pytest.mark.parametrize("name", ["worker", "revocations", "housekeeping", "beat"])
def test_a_process_does_not_begin_on_the_tables_of_another_version(name: str, cli: Cli, tmp_path: Path) -> None:
    with sqlite3.connect(cli.data_dir / "ledger.db") as ledger:
        ledger.execute("update alembic_version set version_num = '0001'")
    ledger.close()
    module, arguments = _begun(name)
    log = tmp_path / "log"
    started = start_python(module, *arguments, log=log, environment=_environment(name, cli), warm=WARM)
    try:
        assert started.wait(60) == 78
    finally:
        end(started, signal.SIGKILL)
    assert "the ledger is at revision 0001" in log.read_text()


def _loses_its_sequence(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    with closing(sqlite3.connect(cli.data_dir / "ledger.db", isolation_level=None)) as ledger:
        ledger.execute("update ledger_numbers set value = 0")


def _is_of_before_a_key_was_retired(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    arguments = ("--client-id", "x", "--client-secret-file", "-")
    cli.json("connections", "add", "github", *arguments, input="hunter2-hunter2")
    files = load(data_dir=cli.data_dir).key_files()
    files.add_vault_key()
    files.retire_vault_key(1)


@pytest.mark.parametrize(
    ("restored", "says"),
    [
        (_loses_its_sequence, "the ledger's numbers are at 0"),
        (_is_of_before_a_key_was_retired, "keys/vault.retired"),
    ],
)
def test_a_process_does_not_begin_on_a_ledger_that_was_restored_without_all_it_needs(
    cli: Cli, tmp_path: Path, restored: Callable[[Cli], None], says: str
) -> None:
    restored(cli)
    module, arguments = _begun("worker")
    log = tmp_path / "log"
    started = start_python(module, *arguments, log=log, environment=_environment("worker", cli), warm=WARM)
    try:
        assert started.wait(60) == 78
    finally:
        end(started, signal.SIGKILL)
    assert says in log.read_text()


@pytest.fixture
def place() -> Iterator[Path]:
    """Where a ledger's server may come to listen: the path of a socket has at most 107 bytes."""
    with TemporaryDirectory(prefix="aswhom-place-") as directory:
        yield Path(directory)


class Appears(logging.Handler):
    """The server of *postgres* listens at *place* once a process has said that it waits for it."""

    def __init__(self, postgres: Postgres, place: Path) -> None:
        super().__init__()
        self.waited = 0
        self._link, self._socket = place / _SOCKET, postgres.directory / _SOCKET

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "action", None) == "ledger.awaited":
            self.waited += 1
            self._link.symlink_to(self._socket)


@pytest.mark.parametrize("fits", [True, False])
def test_a_process_waits_for_the_ledgers_server_and_then_looks_at_the_tables(
    cli: Cli, postgres: Postgres, migrated_postgres: Emptied, place: Path, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    appears = Appears(postgres, place)
    monkeypatch.setattr("deploy.process.log.handlers", [appears])
    url = migrated_postgres.url if fits else postgres.url()
    there = url.replace(quote(str(postgres.directory), safe=""), quote(str(place), safe=""))
    with closing(open_runtime(load(data_dir=cli.data_dir, database_url=there))) as runtime:
        if fits:
            assert of_its_tables(runtime) is runtime
        else:
            with pytest.raises(Misconfigured, match="the ledger is without tables"):
                of_its_tables(runtime)
    assert appears.waited == 1


@pytest.mark.parametrize("name", ["worker", "housekeeping", "beat"])
def test_a_process_that_waits_for_the_ledgers_server_is_stopped_at_once(name: str, cli: Cli, tmp_path: Path) -> None:
    module, arguments = _begun(name)
    nowhere = f"postgresql+psycopg://aswhom@127.0.0.1:{free_port()}/aswhom"
    environment = _environment(name, cli) | {"ASWHOM_DATABASE_URL": nowhere}
    log = tmp_path / "log"
    started = start_python(module, *arguments, log=log, environment=environment, warm=WARM)
    try:
        wait_until(lambda: "the ledger is waited for" in log.read_text(), process=started, log=log)
        started.send_signal(signal.SIGTERM)
        assert started.wait(PATIENCE) == 0, log.read_text()
    finally:
        end(started, signal.SIGKILL)


def _asked(port: int, path: str) -> int | None:
    """What the process' port answers; None: nothing yet."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection, suppress(OSError):
        connection.request("GET", path)
        return connection.getresponse().status
    return None


@pytest.mark.parametrize("name", ["worker", "housekeeping", "beat"])
@pytest.mark.parametrize("there", [True, False])
def test_a_process_is_ready_once_it_has_found_its_ledger_good(name: str, there: bool, cli: Cli, tmp_path: Path) -> None:
    """Its port answers before: who is not ready yet is not to be ended."""
    module, arguments = _begun(name)
    port = free_port()
    environment = _environment(name, cli) | {f"ASWHOM_{name.upper()}_METRICS_PORT": str(port)}
    environment["ASWHOM_BROKER_URL"] = f"redis://127.0.0.1:{free_port()}/0"
    if not there:
        environment["ASWHOM_DATABASE_URL"] = f"postgresql+psycopg://aswhom@127.0.0.1:{free_port()}/aswhom"
    log = tmp_path / "log"
    started = start_python(module, *arguments, log=log, environment=environment, warm=WARM)
    try:
        if there:
            wait_until(lambda: _asked(port, "/readyz") == 200, process=started, log=log)
        else:
            wait_until(lambda: "the ledger is waited for" in log.read_text(), process=started, log=log)
            assert _asked(port, "/readyz") == 503
        assert _asked(port, "/healthz") == 200
    finally:
        end(started, signal.SIGKILL)


def test_up_waits_for_the_ledgers_server_and_is_stopped_at_once_while_it_does(cli: Cli, tmp_path: Path) -> None:
    nowhere = f"postgresql+psycopg://aswhom@127.0.0.1:{free_port()}/aswhom"
    ended, said = _ups(
        cli, tmp_path / "log", lambda says: "the ledger is waited for: " in says, ASWHOM_DATABASE_URL=nowhere
    )
    assert ended == 0, said


def test_up_exits_with_the_code_for_a_wrong_setting_and_with_another_for_what_may_pass(
    cli: Cli, tmp_path: Path
) -> None:
    assert _ups(cli, tmp_path / "wrong", ASWHOM_WORKFLOWS="nowhere")[0] == 78
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended, said = _ups(cli, tmp_path / "taken", ASWHOM_LISTEN=f"127.0.0.1:{taken.getsockname()[1]}")
    assert (ended, "ASWHOM_LISTEN" in said) == (1, True), said


def _ups(cli: Cli, log: Path, stop_once: Callable[[str], bool] | None = None, **variables: str) -> tuple[int, str]:
    """How `aswhom up` ends, and what it says; by a TERM once it said what it is to be stopped for."""
    environment = {
        "PATH": os.environ["PATH"],
        "ASWHOM_DATA_DIR": str(cli.data_dir),
        "ASWHOM_LISTEN": f"127.0.0.1:{free_port()}",
    }
    started = start([str(ASWHOM), "up"], log=log, environment=environment | variables)
    try:
        if stop_once is not None:
            wait_until(lambda: stop_once(log.read_text()), process=started, log=log)
            started.send_signal(signal.SIGTERM)
        return started.wait(60), log.read_text()
    finally:
        end(started, signal.SIGKILL)


def _begun(name: str) -> tuple[str, list[str]]:
    """The module and the arguments of that process of the list."""
    (process,) = [one for one in procfile.read() if one.name == name]
    module, *arguments = process.command[2:] if process.command[0] == "python" else process.command
    return module, arguments


def _environment(name: str, cli: Cli) -> dict[str, str]:
    without = f"ASWHOM_{name.upper()}_METRICS_PORT"
    return {"PATH": os.environ["PATH"], "ASWHOM_DATA_DIR": str(cli.data_dir), without: "0"}


def test_a_taken_address_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = load(data_dir=tmp_path / "d", listen=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(Unavailable, match="ASWHOM_LISTEN"):
            up.Up(settings).start()


def test_a_taken_port_of_the_webs_metrics_is_told_too(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = load(data_dir=tmp_path / "d", listen=f"127.0.0.1:{free_port()}", web_metrics_port=port)
        with pytest.raises(Unavailable, match="ASWHOM_WEB_METRICS_PORT"):
            up.Up(settings).start()


def test_an_address_of_a_family_that_the_machine_has_not_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_ipv6(*_: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "socket", without_ipv6)
    with pytest.raises(Misconfigured, match=r"\[::\]:8080 cannot be listened on .*ASWHOM_LISTEN"):
        up.Up(load(data_dir=tmp_path / "d", listen="[::]:8080", allow_http=True)).start()


@pytest.mark.parametrize("name", [supervisor.RUN / "up.lock", supervisor.CONFIGURATION, Path("valkey/valkey.conf")])
def test_a_file_that_cannot_be_written_is_told_with_what_chooses_its_place(tmp_path: Path, name: Path) -> None:
    settings = load(data_dir=tmp_path / "d", listen=f"127.0.0.1:{free_port()}")
    (settings.data_dir / name).mkdir(parents=True)  # the tests may run as root, who can write anywhere
    with pytest.raises(Misconfigured, match=rf"{name} cannot be written .* with --data-dir"):
        up.Up(settings).start()


def test_a_folder_of_keys_that_cannot_be_made_is_told_with_the_settings_that_choose_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = load(data_dir=tmp_path / "d", vault_key_file=tmp_path / "file/keys/vault")
    with pytest.raises(Misconfigured, match=r"cannot be written .* another place with ASWHOM_VAULT_KEY_FILE$"):
        up.initialise(settings)


def test_workflows_that_cannot_be_had_are_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="No module named 'nowhere'"):
        up.Up(load(data_dir=tmp_path / "d", listen=f"127.0.0.1:{free_port()}", workflows=("nowhere",))).start()
    assert not (tmp_path / "d" / supervisor.CONFIGURATION).exists()


def test_a_directory_too_deep_for_a_socket_gets_one_elsewhere_that_is_private(tmp_path: Path) -> None:
    near = Path("/srv/aswhom")
    assert valkey.socket_path(near) == near / "valkey" / "valkey.sock"
    deep = tmp_path / ("x" * 120)
    short = valkey.socket_path(deep)
    assert len(os.fsencode(short)) < 104
    assert short == valkey.socket_path(deep) != valkey.socket_path(deep / "y")
    try:
        valkey.prepare(deep)
        assert short.parent.stat().st_mode & 0o777 == 0o700
        short.parent.chmod(0o755)
        with pytest.raises(Misconfigured, match=r"ASWHOM_DATA_DIR .* at most 103 bytes"):
            valkey.prepare(deep)
    finally:
        short.parent.rmdir()


def test_the_list_is_read_as_other_process_managers_read_it() -> None:
    assert procfile.parse("# a comment\n\nweb: run 'a b' --x\n") == [Process(name="web", command=("run", "a b", "--x"))]
