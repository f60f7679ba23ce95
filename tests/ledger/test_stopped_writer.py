"""A process that is stopped with SQLite's gate in its hands: the others say so in time, and go on after it."""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from identity.errors import Unavailable
from identity.ids import Ids
from identity.keys.vault import Vault
from pipeline.authoring.registry import Registry
from pipeline.db.database import Database, DatabaseSettings, open_database
from pipeline.db.sqlite import ROOM, SqliteDatabase
from pipeline.deliveries.intake import Intake
from tests.waiting import eventually
from tests.webhooks.parts import MemoryRing
from webhooks.app import create_app
from webhooks.settings import WebSettings

ROOT = Path(__file__).parents[2]
TURN = timedelta(seconds=0.5)

# Writes until it is told to end; while it is inside a write it says so, and waits for a line.
HOLDER = """
import sys
from tests.ledgers import open_ledger
database = open_ledger(sys.argv[1])
def hold(connection):
    print("holds", flush=True)
    sys.stdin.readline()
database.write(hold)
print("wrote", flush=True)
"""


@pytest.fixture
def ledger(migrated_sqlite: Path, tmp_path: Path) -> Iterator[Database]:
    shutil.copy(migrated_sqlite, tmp_path / "ledger.sqlite")
    opened = open_database(DatabaseSettings(url=f"sqlite:///{tmp_path}/ledger.sqlite", turn_timeout=TURN))
    yield opened
    opened.close()


@pytest.fixture
def holder(ledger: Database, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is stopped inside its write."""
    command = [sys.executable, "-c", HOLDER, f"sqlite:///{tmp_path}/ledger.sqlite"]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def client(ledger: Database) -> FlaskClient:
    return _client(ledger)


def _client(ledger: Database) -> FlaskClient:
    intake = Intake(ledger, Vault({1: bytes(32)}, secrets.token_bytes), Ids(), clock=lambda: datetime.now(UTC))
    return create_app(WebSettings(base_url="http://localhost"), intake, _no_workflows(), MemoryRing()).test_client()


def _no_workflows() -> Registry:
    return Registry([])


def _writes(ledger: Database) -> bool:
    """Whether a write is done within half a minute."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            return ledger.write(lambda c: True)
        except Unavailable:
            continue
    return False


@pytest.mark.usefixtures("holder")
def test_the_web_answers_503_with_retry_after_while_another_process_is_stopped_in_its_write(
    client: FlaskClient, ledger: Database
) -> None:
    answer = client.get("/readyz")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.get_json()["type"] == "urn:aswhom:problem:unavailable"
    assert client.get("/healthz").status_code == 200
    assert ledger.read(lambda c: True)


def test_the_web_is_not_ready_on_a_disk_that_has_no_room(migrated_sqlite: Path, tmp_path: Path) -> None:
    free = [ROOM - 1]
    shutil.copy(migrated_sqlite, tmp_path / "ledger.sqlite")
    with closing(SqliteDatabase(f"sqlite:///{tmp_path}/ledger.sqlite", free=lambda _: free[-1])) as full:
        client = _client(full)
        answer = client.get("/readyz")
        assert (answer.status_code, client.get("/healthz").status_code) == (503, 200)
        assert str(tmp_path) not in answer.text
        free.append(ROOM)
        eventually(lambda: client.get("/readyz").status_code == 200, what="it is ready")


@pytest.mark.parametrize("end", [signal.SIGCONT, signal.SIGKILL], ids=lambda end: end.name)
def test_writes_go_on_once_the_stopped_process_is_continued_or_killed(
    client: FlaskClient, ledger: Database, holder: subprocess.Popen[str], end: signal.Signals
) -> None:
    with pytest.raises(Unavailable):
        ledger.write(lambda c: True)
    holder.send_signal(end)
    if end is signal.SIGCONT:
        assert holder.stdin is not None
        holder.stdin.write("\n")
        holder.stdin.flush()
    assert _writes(ledger)
    eventually(lambda: client.get("/readyz").status_code == 200, what="it is ready")


def test_a_process_can_end_while_another_is_stopped_with_the_gate(
    tmp_path: Path, ledger: Database, holder: subprocess.Popen[str]
) -> None:
    mine = open_database(DatabaseSettings(url=f"sqlite:///{tmp_path}/ledger.sqlite", turn_timeout=TURN))
    with pytest.raises(Unavailable):
        mine.write(lambda c: True)
    closing = time.monotonic()
    mine.close()
    assert time.monotonic() - closing < 30
    holder.kill()
    assert _writes(ledger)
