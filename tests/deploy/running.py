"""A real `aswhom up`, and every process that belongs to it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tests.servers.process import free_port
from tests.waiting import eventually

ASWHOM = Path(sys.executable).parent / "aswhom"


def answers(url: str) -> bool:
    """Whether *url* answers 200."""
    try:
        with urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, HTTPException, ConnectionError, TimeoutError):
        return False


def processes_of(data_dir: Path) -> Iterator[tuple[int, bytes]]:
    """The processes of an installation, each with its command line.

    They have its data directory in their environment, which Valkey writes its title over, or work in it.
    """
    mark = f"ASWHOM_DATA_DIR={data_dir}".encode()
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            words = (process / "cmdline").read_bytes()
            ours = mark in (process / "environ").read_bytes().split(b"\0")
            ours |= (process / "cwd").readlink().is_relative_to(data_dir)
            if ours:
                yield int(process.name), words


class Running:
    """`aswhom up` in *directory*, on ports of its own."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.log = directory / "up.log"
        self.url = f"http://127.0.0.1:{free_port()}"
        self.housekeeping_metrics = free_port()
        self.environment = {
            **os.environ,
            "ASWHOM_DATA_DIR": str(self.data_dir),
            "ASWHOM_LISTEN": self.url.removeprefix("http://"),
            "ASWHOM_LOG_FORMAT": "json",
            "ASWHOM_WORKER_METRICS_PORT": "0",
            "ASWHOM_REVOCATIONS_METRICS_PORT": "0",
            "ASWHOM_HOUSEKEEPING_METRICS_PORT": str(self.housekeeping_metrics),
            "ASWHOM_BEAT_METRICS_PORT": "0",
        }
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [ASWHOM, "up", *options], cwd=directory, env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )

    def wait_ready(self, *, seconds: float = 90) -> None:
        """The web answers, and every process says that it is up."""
        eventually(lambda: answers(f"{self.url}/readyz"), seconds=seconds, what="/readyz answers", log=self.log)
        names = ("worker-1@", "worker-2@", "revocations@")
        eventually(
            lambda: all(self.said(name, "ready.") for name in names),
            seconds=seconds,
            what="workers are ready",
            log=self.log,
        )

    def said(self, *words: str) -> bool:
        """Whether a line of the log has all these words."""
        return any(all(word in line for word in words) for line in self.log.read_text().splitlines())

    def pids(self, word: str = "") -> list[int]:
        """The processes of this installation with *word* in their command line."""
        return [pid for pid, words in processes_of(self.data_dir) if word.encode() in words]

    def stop(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = 90) -> int:
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def end(self) -> None:
        """Whatever happened: nothing of it stays behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.data_dir, ignore_errors=True)
