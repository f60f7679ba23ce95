"""watching: how long a person waits for help on the command line, and Prometheus for a page of metrics."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from statistics import median
from urllib.request import urlopen

from tests.bench.figures import Sheet
from tests.bench.ground import KINDS, Ground, listed
from tests.bench.load import deliveries, send
from tests.deploy.running import ASWHOM
from tests.servers.process import free_port

HELP = (("--help",), ("jobs", "--help"), ("jobs", "list", "--help"))
SCRAPES = 20


def measure(ground: Ground, rounds: int) -> Sheet:
    sheet = Sheet("watching: help, and a scrape of two web processes that were busy")
    with ground.ledgers(KINDS) as ledgers, ground.processes() as processes:
        ledger, port = ledgers["PostgreSQL"], free_port()
        ledger.receive("http://127.0.0.1:1")
        environment = ledger.environment(ASWHOM_LISTEN=f"127.0.0.1:{port}")
        processes.serve(listed("web").command, environment, f"http://127.0.0.1:{port}/readyz")
        send(deliveries(1000, port), port, connections=8, seconds=1)
        for _ in range(rounds):
            for words in HELP:
                sheet.add(f"aswhom {' '.join(words)}", _took([ASWHOM, *words]), "ms")
            sheet.add("/metrics", median(_scraped(port) for _ in range(SCRAPES)), "ms")
    sheet.notes.append(f"/metrics: the median of {SCRAPES}, of all that both processes count")
    return sheet


def _took(command: Sequence[object]) -> float:
    began = time.perf_counter()
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000


def _scraped(port: int) -> float:
    began = time.perf_counter()
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        answer.read()
    return (time.perf_counter() - began) * 1000
