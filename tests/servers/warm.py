"""Python processes forked off a parent that has imported what they will need.

A process of ours imports a thousand modules before it does anything, and a system has ten of them: on two cores that is
most of the time of a test that starts one. Here a parent imports them once and forks; a child then runs its module as
`python -m` would, in an environment of its own. The command lines that are shipped, started as they are shipped, are
what tests/deploy and the PostgreSQL half of tests/system start.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
POSSIBLE = sys.platform == "linux"
# What a Celery worker or beat has imported by the time it is ready.
CELERY = (
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.backends.base",
    "celery.beat",
    "celery.bin.celery",
    "celery.fixups.django",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.strategy",
    "celery.worker.worker",
    "kombu.transport.redis",
    "pipeline.broker.celery",
    "pipeline.broker.ring",
)
_SET_DEATH_SIGNAL = 1  # prctl(2)
_LARGEST = 1 << 17  # bytes of an order: an environment and a command line


@dataclass(frozen=True)
class Order:
    """*module* is run with *arguments*, in a child of a parent that has imported *warm*."""

    module: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str
    warm: tuple[str, ...]


class Forked:
    """What the tests use of a `subprocess.Popen`, for a child of the warm parent."""

    def __init__(
        self, parent: Parent, pid: int, args: Sequence[str], stdin: IO[str] | None, stdout: IO[str] | None
    ) -> None:
        self.args = args
        self.pid = pid
        self.returncode: int | None = None
        self.stdin = stdin
        self.stdout = stdout
        self._parent = parent

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._parent.status(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(0.005)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:  # until then nobody else can have its number
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Parent:
    """The process that forks. It ends with the tests."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-u", "-m", __name__, str(theirs.fileno())]
        self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        self._one_at_a_time = threading.Lock()

    def close(self) -> None:
        """Its children end with it."""
        self._control.close()
        self._process.wait()

    def fork(self, order: Order, *, output: IO[Any], stdin: int, stdout: int | None) -> Forked:
        """Start a child whose output goes to *output*; a pipe to or from it if that is asked for."""
        with ExitStack() as theirs:
            if stdin == subprocess.PIPE:
                reads, writes = os.pipe()
                told: IO[str] | None = os.fdopen(writes, "w", encoding="utf-8")
            else:
                reads, told = os.open(os.devnull, os.O_RDONLY), None
            theirs.callback(os.close, reads)
            said: IO[str] | None = None
            out = output.fileno()
            if stdout == subprocess.PIPE:
                ours, out = os.pipe()
                said = os.fdopen(ours, encoding="utf-8")
                theirs.callback(os.close, out)
            pid = self._ask({"start": asdict(order)}, [reads, out, output.fileno()])
        assert isinstance(pid, int)
        return Forked(self, pid, (order.module, *order.arguments), told, said)

    def status(self, pid: int) -> int | None:
        """How a child ended, as `Popen.returncode` says it, or None while it runs."""
        return self._ask({"status": pid})

    def _ask(self, question: Mapping[str, Any], descriptors: Sequence[int] = ()) -> int | None:
        with self._one_at_a_time:
            socket.send_fds(self._control, [json.dumps(question).encode()], list(descriptors))
            answer = self._control.recv(_LARGEST)
        if not answer:
            raise RuntimeError("the warm parent has ended: what it last wrote is above")
        said: int | None = json.loads(answer)
        return said


@cache
def parent() -> Parent:
    """The one of these tests."""
    made = Parent()
    atexit.register(made.close)
    return made


def _serve(control: socket.socket) -> Order | None:
    """Fork as the tests say. Returns an order in the child that is to follow it, and None when the tests are gone."""
    warmed: set[str] = set()
    ended: dict[int, int] = {}
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, _LARGEST, 3)
        if not message:
            return None
        question = json.loads(message)
        if "status" in question:
            asked = question["status"]
            if asked not in ended:
                pid, status = os.waitpid(asked, os.WNOHANG)
                if pid:
                    ended[pid] = os.waitstatus_to_exitcode(status)
            answer = ended.get(asked)  # kept: two threads may ask for the same one
        else:
            order = Order(**question["start"])
            for name in set(order.warm) - warmed:
                importlib.import_module(name)
                warmed.add(name)
                gc.freeze()  # a collection in a child would write to what it shares with us
            answer = os.fork()
            ended.pop(answer, None)  # numbers come again
            if not answer:
                control.close()
                _become(order, descriptors)
                return order
            for descriptor in descriptors:
                os.close(descriptor)
        control.send(json.dumps(answer).encode())


def _become(order: Order, descriptors: Sequence[int]) -> None:
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor, standard in zip(descriptors, (0, 1, 2), strict=True):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.folder)
    sys.argv = [order.module, *order.arguments]
    if concurrency := sys.modules.get("celery.concurrency"):
        importlib.reload(concurrency)  # it reads the environment when it is imported


def main() -> None:
    """The parent, and, after a fork, the child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's is for the tests, which then end us
    order = _serve(socket.socket(fileno=int(sys.argv[1])))
    if order is not None:
        runpy.run_module(order.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
