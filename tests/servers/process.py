"""One child process that does not outlive the tests, whichever way they end."""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

from tests.servers import warm as warmed
from tests.waiting import PATIENCE, eventually

# The kernel ends the child when the thread that started it ends: the only way to leave nothing behind after a kill -9
# of the tests. So start servers from a thread that stays, as fixtures do. macOS has no such thing.
_SETPRIV = shutil.which("setpriv")
_PORTS = range(10_000, 32_000)
# A port is free until its server binds it: neither another of pytest's workers nor this one may give it away meanwhile.
_SHARES = 8
_given: deque[int] = deque(maxlen=500)


class Process(Protocol):
    """What the tests use of a `subprocess.Popen`."""

    @property
    def args(self) -> Any: ...
    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    @property
    def stdin(self) -> IO[str] | None: ...
    @property
    def stdout(self) -> IO[str] | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int, /) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class DidNotStart(RuntimeError):
    """A server the tests need is not there; that is a failure, never a skip."""


def start(
    command: Sequence[str | Path],
    *,
    log: Path,
    user: str | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
) -> subprocess.Popen[str]:
    """Start *command*, its output appended to *log*; *user* only means something to root."""
    prefix: list[str] = []
    if _SETPRIV:
        prefix = [_SETPRIV, "--pdeathsig", "KILL"]
        if user is not None:
            prefix += ["--reuid", user, "--regid", _group_of(user), "--init-groups"]
        prefix.append("--")
    elif user is not None:
        raise DidNotStart("changing the user of a server needs setpriv (util-linux)")
    with log.open("a") as output:
        return subprocess.Popen(
            [*prefix, *map(str, command)],
            stdin=stdin,
            stdout=output if stdout is None else stdout,
            stderr=output,
            text=True,
            env=dict(environment) if environment is not None else None,
        )


def start_python(
    module: str,
    *arguments: str,
    log: Path,
    environment: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
    warm: Sequence[str] = (),
) -> Process:
    """Start `python -m module`, as `start` does; where that can be, forked off a parent that has imported *warm*."""
    if not (warm and warmed.POSSIBLE):
        command = [sys.executable, "-m", module, *arguments]
        return start(command, log=log, environment=environment, stdin=stdin, stdout=stdout)
    order = warmed.Order(
        module=module,
        arguments=arguments,
        environment=dict(os.environ if environment is None else environment),
        folder=str(Path.cwd()),
        warm=tuple(warm),
    )
    with log.open("a") as output:
        return warmed.parent().fork(order, output=output, stdin=stdin, stdout=stdout)


def _group_of(user: str) -> str:
    return str(pwd.getpwnam(user).pw_gid)


def wait_until(ready: Callable[[], bool], *, process: Process, log: Path, seconds: float = PATIENCE) -> None:
    """Wait for *ready*; say what the server wrote if it ends or is late."""

    def is_ready() -> bool:
        if ready():
            return True
        if process.poll() is not None and not ready():  # which may come with its end
            raise DidNotStart(f"{process.args!r} ended with {process.returncode}:\n{tail(log)}")
        return False

    try:
        eventually(is_ready, f"{process.args!r} is ready", seconds=seconds, log=log)
    except AssertionError as late:
        end(process, signal.SIGKILL)
        raise DidNotStart(str(late)) from late


def end(process: Process, with_signal: signal.Signals = signal.SIGTERM, *, seconds: float = PATIENCE) -> None:
    """End *process* and wait for it; what ignores the signal is killed."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)  # a stopped process hears nothing but SIGKILL
        process.send_signal(with_signal)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def lives(pid: int) -> bool:
    """Whether *pid* still runs; a zombie, which its new parent has yet to reap, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a server's log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"


def free_port() -> int:
    """A free loopback port, below those that the kernel gives to clients, which was not given away just before."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ours = _PORTS[worker % _SHARES :: _SHARES]
    for _ in range(100):
        port = secrets.choice(ours)
        if port in _given:
            continue
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            _given.append(port)
            return port
    raise DidNotStart(f"no port of {ours} is free")
