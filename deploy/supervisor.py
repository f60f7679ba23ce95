"""supervisord, which keeps one machine's processes running. Its configuration is written anew at every start.

    aswhom up ─► supervisord ─► valkey · extra processes · the processes of the list · the listener

Each arrow is a parent whose death the kernel signals to the child (SIGTERM, if `setpriv` is available to request it),
so that killing any of them leaves nothing running. A SIGTERM to all of them at once, as systemd sends, stops them the
same way. There is no control port and no control socket.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path

from deploy.procfile import Process

#: Below the data directory.
RUN = Path("run")
CONFIGURATION, PID_FILE, FATAL_FILE = RUN / "supervisord.conf", RUN / "supervisord.pid", RUN / "fatal"
LOG = RUN / "supervisord.log"
LOCK = RUN / "up.lock"  # held by the one `aswhom up` while it runs


def configuration(groups: Iterable[tuple[str, Sequence[Process]]], *, patience: timedelta) -> str:
    """Return supervisord's configuration.

    Groups start in order and stop in reverse; processes of a group stop together. *patience* is how long a process may
    take to stop before it is killed. Paths are relative to supervisord's directory.
    """
    sections = [
        _section(
            "supervisord",
            nodaemon="true",
            silent="true",
            logfile=LOG,
            logfile_maxbytes="1MB",
            logfile_backups=1,
            pidfile=PID_FILE,
            umask="077",
            **({"user": "root"} if os.getuid() == 0 else {}),  # without it, supervisord warns root at every start
        ),
        _section(
            "eventlistener:listener",
            command=_command(Process(name="listener", command=("python", "-m", "deploy.listener", str(FATAL_FILE)))),
            events="PROCESS_STATE_EXITED,PROCESS_STATE_BACKOFF,PROCESS_STATE_FATAL",
            stdout_logfile="NONE",  # the event protocol, not a log; supervisord would otherwise leave a file in TMPDIR
            stderr_logfile="/dev/fd/1",
            stderr_logfile_maxbytes=0,
            priority=1,
        ),
    ]
    for place, (group, processes) in enumerate(groups, start=2):
        sections += [_program(process, patience) for process in processes]
        names = ",".join(process.name for process in processes)
        sections.append(_section(f"group:{group}", programs=names, priority=place * 10))
    return "\n".join(sections)


def _program(process: Process, patience: timedelta) -> str:
    return _section(
        f"program:{process.name}",
        command=_command(process),
        autorestart="true",
        startsecs=10,  # a process that ends sooner is restarted after 1, 2, 3 seconds, then given up
        startretries=3,
        stopsignal="TERM",
        stopwaitsecs=int(patience.total_seconds()),
        killasgroup="true",
        redirect_stderr="true",
        stdout_logfile="/dev/fd/1",
        stdout_logfile_maxbytes=0,
    )


def _command(process: Process) -> str:
    """Return the command line as supervisord parses it: it splits it again and expands `%`."""
    words: list[str] = [*tied(), *process.command]
    if process.environment:
        words = ["env", *(f"{name}={value}" for name, value in process.environment.items()), *words]
    return shlex.join(words).replace("%", "%%")


def _section(name: str, **options: object) -> str:
    return "".join((f"[{name}]\n", *(f"{option} = {value}\n" for option, value in options.items())))


def tied() -> list[str]:
    """Return a command prefix that sends SIGTERM when the parent dies, or nothing if `setpriv` is missing."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []


def scripts_first(path: str) -> str:
    """Return a PATH that begins with our Python and its scripts."""
    ours = dict.fromkeys([sysconfig.get_path("scripts"), str(Path(sys.executable).parent)])
    return os.pathsep.join([*ours, path] if path else ours)


class Supervisor:
    """A running supervisord in *directory*, which already holds its configuration."""

    def __init__(self, directory: Path, environment: dict[str, str], *, log: Path | None = None) -> None:
        self._directory = directory
        (directory / FATAL_FILE).unlink(missing_ok=True)
        command = [*tied(), sys.executable, "-m", "supervisor.supervisord", "-c", str(CONFIGURATION)]
        # A session of its own, so that Ctrl-C reaches only us and we stop the rest in order.
        reading, writing = os.pipe()
        self._relay = _relay(reading, log)
        self._process = subprocess.Popen(
            command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=writing, start_new_session=True
        )
        os.close(reading)
        os.close(writing)

    def stop(self) -> None:
        """Ask supervisord to stop everything, the last started first."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait until supervisord and all its processes have ended. Return its exit code."""
        code = self._process.wait()
        self._relay.wait()  # until the last lines are out
        return code

    def gave_up(self) -> str | None:
        """Return the process that could not be kept running, if that is why supervisord ended."""
        try:
            return (self._directory / FATAL_FILE).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None


def _relay(reading: int, log: Path | None) -> subprocess.Popen[bytes]:
    """Give supervisord a pipe for its output, because it opens /dev/fd/1 by name.

    That fails for a socket (a systemd service's output) and for another user's terminal, and a file would get a second
    writer with its own offset. SIGTERM to the whole control group is ignored: `cat` must outlive the processes whose
    last lines it relays.
    """
    command = ["sh", "-c", "trap '' TERM; exec cat"]
    if log is None:
        return subprocess.Popen(command, stdin=reading, start_new_session=True)
    with log.open("ab") as file:
        return subprocess.Popen(command, stdin=reading, stdout=file, start_new_session=True)


def is_up(directory: Path) -> bool:
    """True if an `aswhom up` runs on *directory*."""
    try:
        with (directory / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # released on close
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def still_running(directory: Path) -> int | None:
    """Return the pid of a supervisord that an earlier `aswhom up` left in *directory*, and that is shutting down."""
    try:
        pid = int((directory / PID_FILE).read_text(encoding="ascii"))
        os.kill(pid, 0)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return None
    except PermissionError:
        return pid
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        at = Path(f"/proc/{pid}/cwd").readlink()
    except OSError:  # it has ended since, or this system has no /proc
        return pid
    # Otherwise the pid was reused, perhaps by the supervisord of another data directory.
    return pid if str(CONFIGURATION).encode() in words and at == directory.resolve() else None
