"""`aswhom up` for real: it starts, it mends, it stops, and it leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from deploy.settings import load
from identity.keys.signing import Signer
from identity.keys.trusted_keys import key_id
from tests.deploy.running import ASWHOM, Running, answers
from tests.servers.postgres import Postgres
from tests.servers.valkey import Valkey
from tests.waiting import PATIENCE, eventually

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc, as Linux has it"),
]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for the tests that leave it running, in their order; the last one stops it."""
    running = Running(tmp_path_factory.mktemp("a place"))
    try:
        running.wait_ready()
        yield running
    finally:
        running.end()


def _aswhom(up: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ASWHOM, *arguments],
        cwd=up.directory,
        env=up.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def test_everything_of_the_process_list_runs_and_answers(up: Running) -> None:
    for word in (
        "valkey-server",
        "deploy.wsgi",
        "worker-1@",
        "worker-2@",
        "revocations@",
        "housekeeping",
        "deploy.beat",
    ):
        assert up.pids(word), word
    eventually(lambda: answers(f"{up.url}/metrics"), what="the web answers Prometheus", log=up.log)
    eventually(
        lambda: answers(f"http://127.0.0.1:{up.housekeeping_metrics}/metrics"),
        what="housekeeping answers Prometheus",
        log=up.log,
    )
    assert up.data_dir.stat().st_mode & 0o777 == 0o700


def test_it_says_whose_web_answers_and_how_much_room_the_data_directory_has(up: Running) -> None:
    seed = load(data_dir=up.data_dir).key_files().read().signing
    said = httpx.get(f"{up.url}/readyz", timeout=30).json()
    assert said == {"status": "ready", "signing_key": key_id(Signer.from_seed(seed).public_key())}
    page = httpx.get(f"http://127.0.0.1:{up.housekeeping_metrics}/metrics", timeout=30).text
    (free,) = re.findall(r"^aswhom_data_free_bytes (\S+)$", page, flags=re.MULTILINE)
    assert float(free) == pytest.approx(shutil.disk_usage(up.data_dir).free, rel=0.5)


def test_doctor_finds_nothing(up: Running) -> None:
    def healthy() -> bool:
        with suppress(subprocess.TimeoutExpired):
            return _aswhom(up, "doctor").returncode == 0
        return False

    eventually(healthy, what="doctor finds nothing", log=up.log)


def test_a_revocation_has_its_receipt_within_seconds(up: Running) -> None:
    assert _aswhom(up, "tenants", "add", "acme").returncode == 0
    done = _aswhom(up, "revoke", "tenant", "acme", "--yes", "--wait", "--json")
    assert done.returncode == 0, done.stderr
    shown = _aswhom(up, "revocations", "show", json.loads(done.stdout)["id"], "--json")
    assert json.loads(shown.stdout)["verified"] is True


def test_every_line_is_json_and_names_its_process(up: Running) -> None:
    lines = [line for line in up.log.read_text().splitlines() if line and not line.startswith("aswhom: ")]
    assert {json.loads(line)["process"] for line in lines} >= {"web", "worker-1", "worker-2", "revocations", "beat"}


def test_a_log_is_told_how_to_make_a_link_to_the_console_which_then_signs_in_once(up: Running) -> None:
    eventually(lambda: up.said("aswhom: the console is at"), what="it says where", log=up.log)
    assert "/console/link/" not in up.log.read_text()
    link = _aswhom(up, "console", "link").stdout.split()[0]
    assert link.startswith(f"{up.url}/console/link/")
    with httpx.Client(trust_env=False, timeout=30) as browser:
        asked = browser.get(link)
        assert (asked.status_code, browser.get(f"{up.url}/console/").status_code) == (200, 303)
        assert browser.post(link).status_code == 303
        assert browser.get(f"{up.url}/console/").status_code == 200
    assert httpx.post(link, trust_env=False, timeout=30).status_code == 410


def test_a_second_one_on_the_same_data_is_refused(up: Running) -> None:
    second = _aswhom(up, "up")
    assert second.returncode == 1
    assert "another `aswhom up` runs" in second.stderr
    eventually(lambda: answers(f"{up.url}/readyz"), what="the first one is ready", log=up.log)


def test_a_worker_that_is_killed_is_started_again(up: Running) -> None:
    (first,) = up.pids("worker-1@")
    os.kill(first, signal.SIGKILL)
    eventually(lambda: up.pids("worker-1@") not in ([], [first]), what="another worker-1", log=up.log)
    assert up.process.poll() is None


def test_sigterm_stops_everything_and_exits_with_zero(up: Running) -> None:
    assert up.stop() == 0, up.log.read_text()[-4000:]
    assert up.pids() == []
    assert not up.said("Traceback"), up.log.read_text()[-4000:]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_sigterm_that_reaches_every_process_at_once_stops_everything_as_well(tmp_path: Path) -> None:
    """As systemd sends it to a whole control group."""
    running = Running(tmp_path)
    try:
        running.wait_ready(seconds=150)
        for pid in {running.process.pid, *running.pids()}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        assert running.process.wait(90) == 0, running.log.read_text()[-4000:]
        assert running.pids() == []
        assert not running.said("Traceback"), running.log.read_text()[-4000:]
        assert running.said("shutdown"), "the last lines are there"
    finally:
        running.end()


@pytest.mark.slow
def test_nothing_stays_when_it_is_killed(tmp_path: Path) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("without setpriv the kernel is not asked to tell children of their parent's death")
    running = Running(tmp_path)
    try:
        running.wait_ready()
        running.stop(signal.SIGKILL)
        eventually(lambda: running.pids() == [], what="nothing is left", log=running.log)
    finally:
        running.end()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_another_ledger_and_another_broker_take_the_place_of_its_own(
    tmp_path: Path, postgres: Postgres, own_valkey: Valkey
) -> None:
    database = postgres.create_database()
    ledger, broker = postgres.url(database), own_valkey.url
    running = Running(tmp_path, "--database-url", ledger, "--broker-url", broker)
    try:
        running.wait_ready(seconds=150)  # it migrates an empty PostgreSQL first
        assert running.pids("valkey-server") == []
        assert not (running.data_dir / "ledger.db").exists()
        running.environment |= {"ASWHOM_DATABASE_URL": ledger, "ASWHOM_BROKER_URL": broker}
        assert _aswhom(running, "tenants", "add", "acme").returncode == 0
        done = _aswhom(running, "revoke", "tenant", "acme", "--yes", "--wait", "--json")
        assert done.returncode == 0, done.stderr
        with postgres.connect(database) as connection:
            stored = connection.execute("SELECT id FROM revocations WHERE quiesced_at IS NOT NULL").fetchall()
        assert stored == [(json.loads(done.stdout)["id"],)]
        with own_valkey.client() as client:
            assert client.keys("aswhom:_kombu.binding.*")
        assert running.stop() == 0, running.log.read_text()[-4000:]
        assert running.pids() == []
    finally:
        running.end()
        postgres.drop_database(database)
