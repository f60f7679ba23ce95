"""A private RabbitMQ with an epmd of its own, on loopback ports and in a directory of its own."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import amqp
from kombu import Connection

from pipeline.broker.celery import QUEUES, BrokerSettings
from tests.servers.process import DidNotStart, end, free_port, start, wait_until

# What Debian's package puts on the path is for its service's user alone.
_BINARIES = Path("/usr/lib/rabbitmq/bin")
# https://www.rabbitmq.com/docs/configure
_CONFIGURATION = """\
listeners.tcp.default = 127.0.0.1:{port}
load_definitions = {directory}/definitions.json
log.console = true
log.console.level = info
log.file = false
"""


class RabbitMQ:
    """One node and its data; the ports stay the same over restarts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "rabbitmq.log"
        self.password = secrets.token_hex(16)
        self.port = free_port()
        self._epmd_port, self._peers_port = free_port(), free_port()
        self._process: subprocess.Popen[str] | None = None
        self._epmd: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """For Celery, as the user `aswhom`, who may do everything in the virtual host `aswhom`, and nothing else."""
        return self.url_of()

    def url_of(self, user: str = "aswhom", password: str = "", vhost: str = "aswhom") -> str:
        """For Celery, as another user; `reader` may configure nothing."""
        return f"amqp://{user}:{password or self.password}@127.0.0.1:{self.port}/{vhost}"

    @contextmanager
    def channel(self) -> Iterator[amqp.Channel]:
        """A new channel, on a connection of its own."""
        with amqp.Connection(f"127.0.0.1:{self.port}", "aswhom", self.password, virtual_host="aswhom") as connection:
            yield connection.channel()

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        """Start the node. Its users and virtual host are made at its first start."""
        server, epmd = _binaries()
        (self.directory / "rabbitmq.conf").write_text(_CONFIGURATION.format(**vars(self)))
        (self.directory / "definitions.json").write_text(json.dumps(self._definitions()))
        (self.directory / "enabled_plugins").write_text("[].")
        if self._epmd is None:
            # An epmd that the node starts by itself is a daemon, and outlives it.
            self._epmd = start([epmd], log=self.directory / "epmd.log", environment=self._environment())
        self._process = start([server], log=self.log, environment=self._environment())
        wait_until(self._answers, process=self._process, log=self.log)

    def queues(self, *columns: str) -> dict[str, list[str]]:
        """The queues of `aswhom` by name, with these columns of `rabbitmqctl list_queues`."""
        said = self.control("list_queues", "--vhost", "aswhom", "--no-table-headers", "name", *columns)
        return {name: rest for name, *rest in (line.split("\t") for line in said.splitlines())}

    def emptied(self) -> None:
        """Run, with the queues that a worker declares, and nothing in them."""
        if self._process is None:
            self.start()
        self.resume()
        with self.channel() as channel:
            for queue in QUEUES:
                channel.queue_delete(queue)
        with Connection(self.url) as connection:
            for entity in BrokerSettings(url=self.url).queues():
                entity(connection.default_channel).declare()
        # A quorum queue that was made seconds before its only node is killed has no leader ever after: the file of its
        # members' names was not written. See https://github.com/rabbitmq/rabbitmq-server/issues/10070
        self.control("eval", "ok = dets:sync(ra_directory_reverse).")

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl` and return what it says."""
        said = subprocess.run(
            [_BINARIES / "rabbitmqctl", "--quiet", *arguments],
            check=False,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        if said.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(arguments)}: {said.stdout}{said.stderr}")
        return said.stdout

    def kill(self) -> None:
        """kill -9: nothing is flushed, nobody is told."""
        end(self._running(), signal.SIGKILL)
        self._process = None

    def restart(self) -> None:
        if self._process is not None:
            self.kill()
        self.start()

    def pause(self) -> None:
        """Stop it in its tracks: connections are accepted by the kernel and never answered."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def stop(self) -> None:
        for process in (self._process, self._epmd):
            if process is not None:
                end(process, signal.SIGKILL)  # nobody reads this data again
        self._process = self._epmd = None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("this RabbitMQ is not running")
        return self._process

    def _environment(self) -> dict[str, str]:
        ours = {
            "HOME": self.directory,  # of the cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": self._epmd_port,
            "RABBITMQ_NODENAME": "rabbit@localhost",
            "RABBITMQ_DIST_PORT": self._peers_port,
            "RABBITMQ_ALLOW_INPUT": "yes",  # otherwise a shell stands between us and the node
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -start_epmd false "
            "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": self.directory / "rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": self.directory / "enabled_plugins",
            "RABBITMQ_MNESIA_BASE": self.directory / "mnesia",
            "RABBITMQ_LOG_BASE": self.directory,
            "LANG": "C.UTF-8",
        }
        return {"PATH": os.environ["PATH"], **{name: str(value) for name, value in ours.items()}}

    def _definitions(self) -> object:
        rights = {
            "aswhom": {"configure": ".*", "write": ".*", "read": ".*"},
            "reader": {"configure": "^$", "write": ".*", "read": ".*"},
        }
        return {
            "users": [self._user(name) for name in rights],
            "vhosts": [{"name": "aswhom"}],
            "permissions": [{"user": name, "vhost": "aswhom", **granted} for name, granted in rights.items()],
        }

    def _user(self, name: str) -> object:
        # https://www.rabbitmq.com/docs/passwords#computing-password-hash
        salt = secrets.token_bytes(4)
        hashed = b64encode(salt + sha256(salt + self.password.encode()).digest()).decode()
        return {
            "name": name,
            "password_hash": hashed,
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": [],
        }

    def _answers(self) -> bool:
        try:
            with self.channel():
                return True
        except (OSError, amqp.exceptions.AMQPError):
            return False


def _binaries() -> tuple[Path, str]:
    """The server, and the daemon by which its tools find it. Raises DidNotStart."""
    server, epmd = _BINARIES / "rabbitmq-server", shutil.which("epmd")
    if not server.exists() or epmd is None:
        raise DidNotStart("these tests want a RabbitMQ server. On Debian: RUNLEVEL=1 apt-get install rabbitmq-server")
    return server, epmd


@contextmanager
def rabbitmq() -> Iterator[RabbitMQ]:
    """A running node in a directory of its own."""
    directory = Path(tempfile.mkdtemp(prefix="aswhom-rabbitmq-"))
    server = RabbitMQ(directory)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory)


if __name__ == "__main__":
    try:
        _binaries()
    except DidNotStart as missing:
        sys.exit(str(missing))
