"""Checks this machine: settings, keys, versions, workflows, and disk space."""

from __future__ import annotations

import math
import platform
import sqlite3
from collections.abc import Iterator

from deploy import build, disk_space
from deploy.checkup.finding import Finding, Subject, ok, unknown, wrong
from deploy.installation import Installation

_SQLITE = (3, 35)  # the first with RETURNING


def settings(at: Installation) -> Iterator[Finding]:
    faults = at.settings.contradictions()
    yield from (wrong(Subject.SETTINGS, f"no process starts: {fault}") for fault in faults)
    if not faults:
        yield ok(Subject.SETTINGS, f"the data directory is {at.settings.data_dir}")


def versions(at: Installation) -> Iterator[Finding]:
    ours = f"Aswhom {build.told()}, Python {platform.python_version()}"
    if not at.settings.on_sqlite:
        yield ok(Subject.VERSIONS, ours)
    elif sqlite3.sqlite_version_info < _SQLITE:
        yield wrong(
            Subject.VERSIONS, f"SQLite {sqlite3.sqlite_version} is too old: use a Python that has 3.35 or later"
        )
    else:
        yield ok(Subject.VERSIONS, f"{ours}, SQLite {sqlite3.sqlite_version}")


def keys(at: Installation) -> Iterator[Finding]:
    held = at.keys
    yield ok(Subject.KEYS, f"vault key {max(held.vault)} seals, {len(held.vault)} open")
    for folder, writable in at.settings.key_files().exposed():
        may = "change" if writable else "look into"
        says = f"others on this machine may {may} {folder}: run `chmod 700 '{folder}'`"
        yield wrong(Subject.KEYS, says) if writable else unknown(Subject.KEYS, says)


def workflows(at: Installation) -> Iterator[Finding]:
    names = ", ".join(sorted(workflow.name for workflow in at.workflows))
    yield ok(Subject.WORKFLOWS, names) if names else wrong(Subject.WORKFLOWS, "none is installed: see ASWHOM_WORKFLOWS")


def disk(at: Installation) -> Iterator[Finding]:
    if not at.settings.data_dir.is_dir():
        return
    free = disk_space.free(at.settings.data_dir)
    if math.isnan(free):
        yield unknown(Subject.DISK, f"what is free where {at.settings.data_dir} lies cannot be read")
    elif free < disk_space.ENOUGH:
        what = f"{free // 1_000_000:.0f} MB are free where {at.settings.data_dir} lies"
        yield wrong(
            Subject.DISK, f"{what}: make room, or move the data directory; `aswhom db prune` forgets what may be"
        )
    else:
        of_server = "" if at.settings.on_sqlite else " here; that of PostgreSQL's server is not looked at"
        yield ok(Subject.DISK, f"{free // 1_000_000_000:.0f} GB are free{of_server}")
