"""`aswhom up`: runs everything on one machine, from data directory and keys to a private Valkey and all processes."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from deploy import procfile, supervisor, valkey
from deploy.console import way_in
from deploy.installation import Installation
from deploy.ledger_keys import refuse_new_keys, tell_of_new_ledger
from deploy.metrics_ports import metrics_address, web_metrics_address
from deploy.posix_signals import handling
from deploy.process import wait_for_ledger, workflows
from deploy.procfile import Process
from deploy.readiness import unready
from deploy.settings import Settings
from deploy.supervisor import Supervisor
from deploy.upgrade import Say, migrate
from deploy.waiting import looks
from identity.errors import AswhomError, Misconfigured, Unavailable
from identity.hold import find_hold

_TOKEN_REQUEST = timedelta(seconds=35)  # at most twenty seconds on the wire, plus commits and connection teardown

#: Below the data directory.
TARGETS = supervisor.RUN / "prometheus.json"


def initialise(settings: Settings) -> list[Path]:
    """Create the data directory and the keys if they are missing. Return the created paths.

    Raise Misconfigured, also if a ledger exists that needs the missing keys.
    """
    made = []
    folder, keys = settings.data_dir, settings.key_files()
    if missing := keys.missing():
        refuse_new_keys(settings, keys, missing)
    with _writing(folder):
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True)
            made.append(folder)
        (folder / supervisor.RUN).mkdir(mode=0o700, exist_ok=True)
    set_apart = {"ASWHOM_VAULT_KEY_FILE": keys.vault, "ASWHOM_SIGNING_KEY_FILE": keys.signing}
    elsewhere = [name for name, path in set_apart.items() if not path.is_relative_to(folder)]
    with _writing(keys.vault.parent, by=" and ".join(elsewhere) or "--data-dir"):
        made += keys.create()
    return made


@contextmanager
def _writing(place: Path, *, by: str = "--data-dir") -> Iterator[None]:
    """Report OS errors for files at or below *place*, which the setting *by* chooses. Raise Misconfigured."""
    try:
        yield
    except OSError as error:
        fault = f"{error.filename or place} cannot be written ({error.strerror})"
        raise Misconfigured(f"{fault}: mend that, or choose another place with {by}") from error


def processes(settings: Settings) -> list[Process]:
    """Return the processes to run, from the process list: the set number of workers, and one of each other kind."""
    listed = []
    for process in procfile.read():
        numbers = range(1, settings.workers + 1) if process.name == "worker" else ()
        listed += [process.numbered(number) for number in numbers] or [process]
    return listed


def targets(settings: Settings) -> list[dict[str, Any]]:
    """Return Prometheus's scrape targets, in the format of its `file_sd_configs`."""
    addresses = {"web": settings.listen}
    ports = {process.name: settings.metrics_port(process.name) for process in processes(settings)}
    addresses |= {name: metrics_address(settings, port) for name, port in ports.items() if port}
    return [{"targets": [address], "labels": {"process": name}} for name, address in addresses.items()]


def patience(settings: Settings) -> timedelta:
    """Return how long a stopping process may wait for a call it has opened, or for a token request."""
    return max(settings.limits().grace, _TOKEN_REQUEST)


class Up:
    """The processes of one machine, from `start` to `stop`.

    *extra* processes start before the list's and stop after them. Output goes to our standard output, or is appended to
    *log*. *beside_others* allows migrations while other processes are connected to the ledger.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        extra: Sequence[Process] = (),
        say: Say = lambda line: None,
        log: Path | None = None,
        beside_others: bool = False,
    ) -> None:
        self._log = log
        self._beside_others = beside_others
        self._settings = settings
        self._extra = extra
        self._say = say
        self._supervisor: Supervisor | None = None
        self._lock: int | None = None
        self._stopping = False

    def start(self) -> None:
        """Create what is missing and start everything. It returns before the processes are ready.

        It waits for a ledger server that is not up yet, as every process does. Raise Misconfigured, or Unavailable for
        a fault that may be gone at the next attempt.
        """
        settings = self._settings
        made = initialise(settings)
        for path in made:
            self._say(f"made {path}")
        self._lock = _sole(settings.data_dir, patience(settings))
        _free(settings)
        settings.key_files().read()  # this and the workflows are checked before waiting for a server
        workflows(settings)
        wait_for_ledger(settings, tell=self._say)
        tell_of_new_ledger(settings, made, self._say)
        migrate(settings, say=self._say, beside_others=self._beside_others, by_up=True)
        groups: list[tuple[str, Sequence[Process]]] = []
        folder = settings.data_dir
        if settings.embedded:
            server = str(valkey.server_path())
            with _writing(folder):
                configuration = str(valkey.prepare(folder).relative_to(folder))
            groups.append(("broker", [Process(name="valkey", command=(server, configuration))]))
        if self._extra:
            groups.append(("beside", self._extra))
        groups.append(("aswhom", processes(settings)))
        text = supervisor.configuration(groups, patience=patience(settings))
        with _writing(folder):
            (folder / TARGETS).write_text(json.dumps(targets(settings), indent=2), encoding="utf-8")
            (folder / supervisor.CONFIGURATION).write_text(text, encoding="utf-8")
        environment = settings.environment()
        environment["PATH"] = supervisor.scripts_first(environment.get("PATH", ""))
        self._supervisor = Supervisor(folder, environment, log=self._log)
        if self._stopping:
            self._supervisor.stop()

    def wait_ready(
        self, *, within: timedelta | None = timedelta(seconds=60), every: timedelta = timedelta(milliseconds=100)
    ) -> bool:
        """Wait until the web could accept a delivery. Return False if it was stopped, gave up or is late."""
        for _ in looks(within, every=every):
            if not self.running:
                break
            if unready(self._settings.listen) is None:
                return True
        return False

    @property
    def running(self) -> bool:
        return self._supervisor is not None and self._supervisor.running

    def stop(self) -> None:
        """Ask everything to stop. `wait` returns once it has."""
        self._stopping = True
        if self._supervisor is not None:
            self._supervisor.stop()

    def wait(self) -> int:
        """Wait until nothing runs any more. Return 0 if it was stopped, 1 if a process could not be kept running."""
        if self._supervisor is None:
            return 0
        code = self._supervisor.wait()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if process := self._supervisor.gave_up():
            self._say(f"stopped, because {process} could not be kept running: its own lines above say why")
            return 1
        if code != 0 or not self._stopping:
            self._say(f"the supervisor ended with {code}: see {self._settings.data_dir / supervisor.LOG}")
            return 1
        return 0


def run(settings: Settings, *, say: Say, unrecorded: bool, beside_others: bool) -> int:
    """Run `aswhom up` until Ctrl-C, SIGTERM, or a process that cannot be kept running. Return the exit code.

    *unrecorded* means that the output goes to a terminal and into no log.
    """
    up = Up(settings, say=say, beside_others=beside_others)

    def stop(_number: int, _frame: FrameType | None) -> None:
        up.stop()

    with handling((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), stop):
        say("starting; see `aswhom doctor` in another terminal if it takes long")
        up.start()
        _say_when_ready(up, settings, say, unrecorded=unrecorded)
        return up.wait()


def _say_when_ready(
    up: Up, settings: Settings, say: Say, *, unrecorded: bool, slow: timedelta = timedelta(seconds=60)
) -> None:
    """Wait until ready or ended, however long it takes. After *slow*, say why it is not ready, or that it is held."""
    is_ready = up.wait_ready(within=slow)
    if not is_ready and up.running and (why := unready(settings.listen)) is None:
        is_ready = True
    elif not is_ready and up.running:
        say(f"not ready after {slow.total_seconds():g} s: {why}. It is waited for; Ctrl-C stops everything")
        _say_if_held(settings, say)
        is_ready = up.wait_ready(within=None, every=timedelta(seconds=2))
    if is_ready:
        say(f"Aswhom is up at {settings.base_url}, with its data in {settings.data_dir}. Ctrl-C stops it")
        if way := way_in(settings, unrecorded=unrecorded):
            say(way)
        _say_if_held(settings, say)


def _say_if_held(settings: Settings, say: Say) -> None:
    """Mention a hold: everything looks fine while nothing goes out."""
    try:
        with Installation(settings) as at:
            hold = at.read(find_hold)
    except AswhomError:  # the ledger is busy: `aswhom doctor` reports that
        return
    if hold is not None:
        say(f"it is {hold.sentence}. `aswhom hold release` ends it")


def _sole(directory: Path, patience: timedelta) -> int:
    """Lock the data directory for this `aswhom up`, and wait for processes that a killed one left behind."""
    with _writing(directory):
        lock = os.open(directory / supervisor.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Unavailable(
            f"another `aswhom up` runs on {directory}: stop it first, or choose another --data-dir"
        ) from None
    for _ in looks(patience):
        if (pid := supervisor.still_running(directory)) is None:
            return lock
    os.close(lock)
    raise Unavailable(f"the processes of an `aswhom up` that was killed are still there: end process {pid}")


def _free(settings: Settings) -> None:
    """Check now that the addresses can be listened on, rather than fail repeatedly in a log.

    Raise Unavailable if an address may become available: another process uses it, or the network is not up yet.
    """
    _bound_to(settings.listen, "set ASWHOM_LISTEN and ASWHOM_BASE_URL")
    if metrics := web_metrics_address(settings):
        _bound_to(metrics, "set ASWHOM_WEB_METRICS_PORT, and ASWHOM_METRICS_HOST")


def _bound_to(address: str, remedy: str) -> None:
    """Raise Misconfigured or Unavailable if the address cannot be listened on."""
    host, _, port = address.rpartition(":")
    name = host.strip("[]")
    try:
        with socket.socket(socket.AF_INET6 if ":" in name else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((name, int(port)))
    except OSError as error:
        later = error.errno in {errno.EADDRINUSE, errno.EADDRNOTAVAIL}
        raise (Unavailable if later else Misconfigured)(
            f"{address} cannot be listened on ({error.strerror}): {remedy}"
        ) from error
