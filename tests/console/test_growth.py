"""A page costs no more where the ledger has four times as much: measured in steps of SQLite's machine, not in time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from identity.console.roles import Held, Role
from pipeline.db.database import DatabaseSettings
from pipeline.migrations import upgrade_at
from tests.bench.console import PAGES
from tests.bench.population import fill
from tests.console.console_app import ConsoleApp, Visit
from tests.ledgers import open_ledger

EVERY = 100  # steps of the machine between two calls of the handler


def cost(directory: Path, jobs: int) -> dict[str, int]:
    """Steps that each page takes of a ledger with so many jobs."""
    url = f"sqlite:///{directory}/{jobs}.db"
    upgrade_at(DatabaseSettings(url=url))
    database = open_ledger(url)
    console = ConsoleApp(database, built=True)
    console.house.build()
    fill(url, jobs)
    client = console.app.test_client()
    client.set_cookie("aswhom-console", console.session(Held(role=Role.OWNER, tenant=None)).reveal())
    visit, spent = Visit(client), dict[str, int]()
    middle = visit.sees("/console/jobs?state=dead").partition("after=")[2].partition('"')[0]
    with counted(database.engine) as steps:
        for name, template in PAGES.items():
            before = steps[0]
            visit.sees("/console/" + template.format(middle=middle, half=jobs // 20 * 10, tenth=jobs // 20))
            spent[name] = (steps[0] - before) * EVERY
    console.close()
    database.close()
    return spent


@contextmanager
def counted(engine: Engine) -> Iterator[list[int]]:
    steps = [0]

    def step() -> int:
        steps[0] += 1
        return 0

    def watch(connection: Any, record: Any, proxy: Any) -> None:
        connection.set_progress_handler(step, EVERY)

    event.listen(engine, "checkout", watch)
    yield steps
    event.remove(engine, "checkout", watch)


@pytest.mark.slow
def test_no_page_of_the_console_takes_longer_because_the_ledger_is_larger(tmp_path: Path) -> None:
    small, large = cost(tmp_path, 20_000), cost(tmp_path, 80_000)
    grown = {name: (small[name], large[name]) for name in PAGES if large[name] > 1.5 * small[name] + 20_000}
    assert grown == {}
