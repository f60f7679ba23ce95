"""On what it was measured: without this, a figure says nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
import subprocess
import time
from pathlib import Path
from statistics import median

from tests.bench.ground import Ground

PACKAGES = ("celery", "kombu", "flask", "gunicorn", "sqlalchemy", "psycopg", "pydantic", "httpx")


def describe(ground: Ground) -> dict[str, str]:
    """The machine, the versions, and what a commit means on it."""
    with ground.cluster.connect() as connection:
        settings = ("server_version", "fsync", "synchronous_commit", "wal_sync_method", "shared_buffers")
        postgres = {name: str((connection.execute(f"show {name}").fetchone() or ("",))[0]) for name in settings}
    with ground.broker.client() as client:
        valkey, fsync = client.info("server"), client.config_get("appendfsync")["appendfsync"]
    load = ", ".join(f"{average:.2f}" for average in os.getloadavg())
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, load {load}",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "packages": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES),
        "disk": f"{_file_system(ground.directory)}, a write and its flush take {_flush(ground.directory):.2f} ms",
        "SQLite": f"{sqlite3.sqlite_version}: journal_mode WAL, synchronous FULL",
        "PostgreSQL": ", ".join(f"{name} {value}" for name, value in postgres.items()),
        "Valkey": f"{valkey.get('valkey_version') or valkey['redis_version']}: appendonly yes, appendfsync {fsync}",
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _file_system(directory: Path) -> str:
    command = ["df", "--output=fstype", str(directory)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return said[-1] if said else "unknown file system"


def _flush(directory: Path) -> float:
    """Milliseconds, the median of a hundred blocks of 4 kB appended and flushed."""
    took = []
    with (directory / "flushed").open("wb", buffering=0) as file:
        for _ in range(100):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return median(took) * 1000
