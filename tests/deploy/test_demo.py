"""`aswhom demo`: one command, nothing installed but Python, and what it tells agrees with the sandbox's own logs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy.cli import main
from deploy.demo.stage import Stage
from identity.errors import Unavailable
from tests.deploy.running import ASWHOM, processes_of


def test_the_demo_is_no_part_of_another_installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASWHOM_DATABASE_URL", "postgresql://aswhom:hunter2@ledger.example/aswhom?sslmode=disable")
    refused = CliRunner().invoke(main, ["demo", "--data-dir", str(tmp_path / "new")])
    assert (refused.exit_code, "unset ASWHOM_DATABASE_URL" in refused.output) == (1, True)
    assert "hunter2" not in refused.output
    monkeypatch.delenv("ASWHOM_DATABASE_URL")
    (tmp_path / "kept").write_text("of somebody's")
    refused = CliRunner().invoke(main, ["demo", "--data-dir", str(tmp_path)])
    assert (refused.exit_code, "is not empty" in refused.output) == (1, True)
    refused = CliRunner().invoke(main, ["demo", "--json", "--data-dir", str(tmp_path / "kept")])
    assert json.loads(refused.stdout)["error"] == "Misconfigured"


def test_a_story_that_is_not_over_in_its_time_says_what_it_was_waiting_for(tmp_path: Path) -> None:
    stage = Stage(tmp_path, say=lambda _: None, within=timedelta(0))
    with closing(stage.http), pytest.raises(Unavailable, match="not end within 0 s: it was waiting for the receipt"):
        stage.until(lambda: False, "the receipt")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc, as Linux has it")
def test_a_demo_that_is_late_fails_and_leaves_nothing_running(tmp_path: Path) -> None:
    told = subprocess.run(
        [str(ASWHOM), "demo", "--within", "1", "--data-dir", str(tmp_path / "data")],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (told.returncode, "did not end within 1 s: it was waiting for" in told.stderr) == (1, True), told.stderr
    assert list(processes_of(tmp_path / "data")) == []


@pytest.mark.slow
@pytest.mark.timeout(220)
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc, as Linux has it")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_demo_that_is_told_to_end_stops_everything_and_keeps_nothing(tmp_path: Path, number: signal.Signals) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([str(ASWHOM), "demo"], env=environment, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert any("Pull requests are opened" in line for line in demo.stdout)  # it runs
        (data,) = tmp_path.glob("aswhom-demo-*")
        demo.send_signal(number)
        assert demo.wait(60) == 128 + number
    assert list(processes_of(data)) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(220)
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc, as Linux has it")
def test_a_demo_whose_system_ends_says_so_at_once(tmp_path: Path) -> None:
    command = [str(ASWHOM), "demo", "--within", "3600", "--data-dir", str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert any("Pull requests are opened" in line for line in demo.stdout)
        (supervisor,) = [pid for pid, words in processes_of(tmp_path / "data") if b"supervisord" in words]
        os.kill(supervisor, signal.SIGTERM)
        _, said = demo.communicate(timeout=60)
    assert (demo.returncode, "does not run any more" in said) == (1, True), said


@pytest.mark.slow
@pytest.mark.timeout(220)
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc, as Linux has it")
def test_one_command_tells_the_story_the_sandbox_agrees_step_by_step_and_nothing_stays(tmp_path: Path) -> None:
    told = subprocess.run(
        [str(ASWHOM), "demo", "--json", "--data-dir", str(tmp_path / "data")],
        cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout[-2000:] + told.stderr[-4000:]
    assert list(processes_of(tmp_path / "data")) == []
    story = json.loads(told.stdout)
    assert set(story) == {
        "steps", "jobs", "refreshes", "cancelled_jobs", "deal", "noted", "receipt", "provider_receipt", "verified",
        "payments", "approved_by", "replays", "audit_verified",
    }  # fmt: skip
    told_of = {"job", "step", "action", "principal", "pattern", "reason", "status"}
    assert [set(step) for step in story["steps"]] == [told_of] * len(story["steps"])
    assert {step["pattern"] for step in story["steps"]} >= {"delegated", "service", "capability"}
    assert {job["pattern"] for job in story["jobs"]} == {"delegated", "service", "hybrid", "capability"}
    assert story["deal"] == {"opportunity": "Ada's opportunity", "stage": "Closed Won", "by": "ada"}
    assert [set(noted) for noted in story["noted"]] == [{"subscription", "aswhom_reconciliation"}] * 2
    assert set(story["receipt"]["cancelled_jobs"]) == {job["job"] for job in story["cancelled_jobs"]} != set()
    assert {refresh["outcome"] for refresh in story["refreshes"]} >= {"committed"}
    assert [row["verified"] for row in story["verified"]] == [True, True, True, False]
    assert story["audit_verified"] is True
