"""`aswhom hold` and `aswhom db restored`, and what `doctor` says while nothing goes out."""

from __future__ import annotations

import fcntl
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, update

from deploy import supervisor
from deploy.cli.output import Output
from deploy.cli.restored import STEPS
from deploy.installation import Installation
from deploy.settings import load
from deploy.up import _say_if_held
from identity.audit.statements import sign
from identity.model import Scope, ScopeKind
from identity.sql.metadata import ledger_numbers
from pipeline.desk.restored import GAP
from pipeline.jobs.new_jobs import NewJob, insert_job
from pipeline.model import BEAT
from pipeline.revocation.declaration import Cause, declare
from pipeline.revoker.inquiry import SignalDoubt
from pipeline.tables import jobs, schedules
from tests.deploy.conftest import Cli, told
from tests.heartbeats import ticked


def test_a_hold_is_set_shown_and_released_and_doctor_tells_of_it(cli: Cli) -> None:
    nothing = {"calls_out": 0, "requests_out": 0, "jobs_due": 0, "doubted": []}
    assert cli.json("hold", "show") == {"held": False, "changed": False, **nothing}
    assert cli("hold", "show", "--exit-code").exit_code == 1
    said = cli.json("hold", "set", "--why", "the provider's incident")
    assert (said["held"], said["changed"], said["why"]) == (True, True, "the provider's incident")
    assert said["by"].startswith("cli:")
    again = cli.json("hold", "set", "--why", "another reason", code=1)
    assert (again["changed"], again["why"]) == (False, "the provider's incident")
    assert "held already" in cli("hold", "set", "--why", "another reason").output
    assert "say why" in cli("hold", "set", "--why", " ").output
    shown = cli("hold", "show", "--exit-code")
    assert (shown.exit_code, "the provider's incident). Nothing is out. No job is due" in shown.output) == (0, True)
    ((state, says),) = told(cli, "held")
    assert state == "unknown"
    assert "held since" in says
    assert "nothing goes out (the provider's incident). `aswhom hold release` ends it" in says
    asked = cli("hold", "release").output
    assert "Say so with --yes" in asked
    assert f"its ledger at {cli.data_dir / 'ledger.db'}" in asked
    assert "PUT BACK" not in asked
    assert cli.json("hold", "release", "--yes") == {"held": False, "changed": True}
    assert cli.json("hold", "release") == {"held": False, "changed": False}
    assert told(cli, "held") == []


def test_a_signal_that_may_be_a_replay_is_told_of_before_the_release(cli: Cli) -> None:
    """Once its token has expired nobody can tell any more."""
    cli.json("tenants", "add", "acme")
    scope = Scope(kind=ScopeKind.TENANT, key="acme")
    with Installation(load(data_dir=cli.data_dir)) as at:
        cause = Cause(source="x", by="github", reason="signal")
        made = partial(declare, scope=scope, cause=cause, tenant="acme", now=at.now())
        for id, doubt in (("rev-1", None), ("rev-2", SignalDoubt.OPEN)):
            at.write(partial(made, id=id, doubt=doubt))
    cli.json("hold", "set", "--why", "a drill")
    assert cli.json("hold", "show")["doubted"] == ["rev-2"]
    assert "may be a replay wait for the provider's answer (rev-2)" in cli("hold", "show").output
    assert "(rev-2)" in cli("hold", "release").output


def test_while_it_is_held_what_waits_for_the_release_is_no_fault(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    workflow = ("--tenant", "acme", "--workflow", "daily_digest")
    cli.json("schedules", "add", "early", *workflow, "--cron", "30 2 * * *")
    now = datetime.now(UTC)
    with Installation(load(data_dir=cli.data_dir)) as at:
        late = update(schedules).values(next_at=now - timedelta(hours=1))
        at.write(lambda c: c.execute(late).rowcount)
        ticked(at.ledger, BEAT, at=now)
    ((state, says),) = told(cli, "schedules")
    assert (state, "has been due" in says) == ("wrong", True)
    cli.json("hold", "set", "--why", "a drill")
    assert told(cli, "schedules") == [("ok", "1 are kept")]


def test_a_restored_ledger_is_marked_with_what_was_kept_elsewhere_and_the_steps_are_printed(
    cli: Cli, tmp_path: Path
) -> None:
    cli.json("tenants", "add", "acme")
    cli("audit", "checkpoint")
    kept = tmp_path / "audit.jsonl"
    cli("audit", "export", "--output", str(kept))
    checkpoint = tmp_path / "checkpoint.json"
    with Installation(load(data_dir=cli.data_dir)) as at:
        checkpoint.write_text(sign(at.signer, seq=1_000, digest="d" * 64, at=at.now()).line())
    given = ("--why", "the disk died", "--lost-checkpoint", str(checkpoint), "--export", str(kept))
    asked = cli("db", "restored", *given).output
    assert "Say so with --yes" in asked
    assert f"its ledger at {cli.data_dir / 'ledger.db'}, was put back, goes up to" in asked
    assert cli.json("hold", "show")["held"] is False
    done = cli.json("db", "restored", *given, "--yes")
    assert done["numbers_after"] == done["last_number"] + GAP
    assert cli.json("hold", "show")["why"] == "the disk died"
    (record,) = cli.json("audit", "search", "--kind", "ledger.restored")
    assert record["reason"].endswith(": the disk died")
    assert cli.json("audit", "show", record["id"])["detail"]["lost"]["seq"] == 1_000
    said = cli("db", "restored", "--why", "again", "--yes").output
    assert "aswhom hold release" in said
    assert "3. `aswhom audit verify" in said
    assert "THE LEDGER WAS PUT BACK FROM A BACKUP" in cli("hold", "release").output
    assert cli.json("audit", "verify", code=0)["verified"] is True


def test_a_restored_ledger_is_marked_also_where_its_numbers_are_behind_and_whatever_it_was_held_for(
    cli: Cli, tmp_path: Path
) -> None:
    cli.json("tenants", "add", "acme")
    cli.json("hold", "set", "--why", "the provider's incident")
    with Installation(load(data_dir=cli.data_dir)) as at:
        at.write(lambda c: c.execute(update(ledger_numbers).values(value=0)).rowcount)
        checkpoint = tmp_path / "checkpoint.json"
        checkpoint.write_text(sign(at.signer, seq=1_000, digest="d" * 64, at=at.now()).line())
    assert "`aswhom db restored`" in cli.json("hold", "show", code=1)["message"]
    given = ("--why", "the disk died", "--lost-checkpoint", str(checkpoint), "--yes")
    assert cli.json("db", "restored", *given)["last_number"] > 0
    assert cli.json("hold", "show")["why"] == "the disk died"
    (record,) = cli.json("audit", "search", "--kind", "ledger.restored")
    before = cli.json("audit", "show", record["id"])["detail"]["held_before"]
    assert before.endswith("nothing goes out (the provider's incident)")


def test_a_file_that_is_spoilt_is_not_marked_as_restored(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    with closing(sqlite3.connect(cli.data_dir / "ledger.db")) as opened, opened:
        opened.execute("delete from tenants")  # as pages of another ledger's log would leave it
    said = cli.json("db", "restored", "--why", "the disk died", "--yes", code=1)["message"]
    assert "refers to a row of tenants that is not there. Where a -wal lay beside it" in said
    assert cli.json("hold", "show")["held"] is False


def test_a_backup_put_back_beside_another_ledgers_log_is_refused_before_it_is_opened(cli: Cli, tmp_path: Path) -> None:
    backup, ledger = tmp_path / "backup.db", cli.data_dir / "ledger.db"
    cli.json("db", "backup", str(backup))
    with closing(sqlite3.connect(ledger)) as killed:
        killed.execute("insert into tenants (id, name, created_at) values ('late', 'late', 0)")
        killed.commit()
        log = (cli.data_dir / "ledger.db-wal").read_bytes()
    ledger.write_bytes(backup.read_bytes())
    (cli.data_dir / "ledger.db-wal").write_bytes(log)
    assert log
    marked = ("db", "restored", "--why", "the disk died", "--yes")
    assert f"ledger.db-wal of {len(log)} bytes" in cli.json(*marked, code=1)["message"]
    assert (cli.data_dir / "ledger.db-wal").read_bytes() == log, "nothing has opened it"
    assert ledger.read_bytes() == backup.read_bytes()
    (cli.data_dir / "ledger.db-wal").unlink()
    cli.json(*marked)
    assert cli.json("tenants", "list") == []


def test_a_ledger_on_which_processes_live_is_not_marked(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    marked = ("db", "restored", "--why", "the wrong window", "--yes")

    def tick(seconds: float) -> None:
        with Installation(load(data_dir=cli.data_dir)) as at:
            ticked(at.ledger, "dispatch", at=datetime.now(UTC) + timedelta(seconds=seconds), host="db-1")

    tick(-5)
    with monkeypatch.context() as lives:
        lives.setattr(Output, "now", lambda _self, _line: tick(-1))
        assert "heartbeats come from db-1. Nothing was changed" in cli.json(*marked, code=1)["message"]
    assert cli.json("hold", "show")["held"] is False
    tick(-14)
    cli.json(*marked)  # the backup is as new as that, and its heartbeat stays the last


def test_a_ledger_on_whose_data_directory_an_up_runs_is_not_marked(cli: Cli) -> None:
    marked = ("db", "restored", "--why", "the wrong window", "--yes")
    (cli.data_dir / supervisor.RUN).mkdir(exist_ok=True)
    with (cli.data_dir / supervisor.LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = cli.json(*marked, code=1)["message"]
        assert f"an `aswhom up` runs on {cli.data_dir}. Nothing was changed" in said
    assert cli.json("hold", "show")["held"] is False
    cli.json(*marked)


def test_where_the_ledger_is_lost_none_is_made_and_nobody_is_sent_to_make_one(cli: Cli) -> None:
    (cli.data_dir / "ledger.db").unlink()
    for command in (("hold", "show"), ("db", "restored", "--why", "x", "--yes"), ("tenants", "list")):
        assert "but there are keys: restore its backup" in cli.json(*command, code=1)["message"]
    assert not (cli.data_dir / "ledger.db").exists()


def test_a_ledger_that_is_made_under_old_keys_is_told_of_first(cli: Cli) -> None:
    assert "a new, empty one is created" not in cli("init").output
    (cli.data_dir / "ledger.db").unlink()
    note, last = cli("init").output.splitlines()
    assert note.startswith("there are keys but no ledger, so a new, empty one is created.")
    assert last.startswith("Ready.")


def test_without_its_keys_a_marked_ledger_says_so(cli: Cli) -> None:
    (cli.data_dir / "keys" / "signing").unlink()
    said = cli("db", "restored", "--why", "the disk died", "--yes")
    assert (said.exit_code, "signing: put the keys of its time back first" in said.output) == (0, True)


def test_the_steps_that_are_printed_have_the_numbers_and_commands_of_the_document() -> None:
    section = (
        Path(__file__)
        .parents[2]
        .joinpath("docs/operations.md")
        .read_text()
        .split("\n## Restore\n")[1]
        .partition("\n## ")[0]
    )
    numbered = dict(re.findall(r"^([0-9]+)\. (.*?)(?=^[0-9]+\. |^#)", section, flags=re.DOTALL | re.MULTILINE))
    assert [int(number) for number in numbered if int(number) > 2] == list(STEPS)
    for number, step in STEPS.items():
        for command in re.findall(r"`(aswhom [^`]*)`", step):
            assert command in numbered[str(number)], f"step {number}"


def test_who_starts_the_processes_of_a_held_installation_is_told(cli: Cli) -> None:
    said: list[str] = []
    settings = load(data_dir=cli.data_dir)
    _say_if_held(settings, said.append)
    assert said == []
    cli.json("hold", "set", "--why", "a drill")
    _say_if_held(settings, said.append)
    (line,) = said
    assert "nothing goes out (a drill). `aswhom hold release` ends it" in line


def test_a_job_that_waits_for_the_release_says_so(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    with Installation(load(data_dir=cli.data_dir)) as at:
        for state in ("queued", "waiting", "done"):
            workflow = at.workflows.get("link_pull_request")
            new = NewJob(id=state, tenant="acme", workflow=workflow, triggered_by="ada", event={}, config={})
            at.write(partial(insert_job, new=new, now=at.now()))
            at.write(partial(_is_now, id=state, state=state))
    unfinished = [job["id"] for job in cli.json("jobs", "list", "--unfinished")]
    assert sorted(unfinished) == ["queued", "waiting"]
    assert len(cli.json("jobs", "list", "--unfinished", "--limit", "1")) == 1
    assert "do not also give --state" in cli.json("jobs", "list", "--unfinished", "--state", "done", code=1)["message"]
    assert "nothing goes out" not in cli("jobs", "show", "queued").output
    cli.json("hold", "set", "--why", "a drill")
    assert "nothing goes out (a drill)" in cli("jobs", "list").stderr
    assert "nothing goes out" not in cli("jobs", "list", "--state", "done").stderr
    assert "Meanwhile the installation is held since" in cli("jobs", "show", "queued").output
    assert [cli.json("jobs", "show", id)["held"] for id in ("queued", "waiting", "done")] == [True, True, False]
    assert "nothing goes out (a drill)" in cli("tail", "queued", "--timeout", "0").stderr
    assert cli.json("hold", "show")["jobs_due"] == 1
    cli.json("schedules", "add", "early", "--tenant", "acme", "--workflow", "daily_digest", "--cron", "30 2 * * *")
    assert "nothing goes out (a drill)" in cli("schedules", "list").stderr


def _is_now(connection: Connection, id: str, state: str) -> None:
    wait = "consent" if state == "waiting" else None
    connection.execute(update(jobs).where(jobs.c.id == id).values(state=state, wait=wait))


def test_what_is_no_checkpoint_or_no_export_marks_nothing(cli: Cli, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("{}")
    for option, says in (("--lost-checkpoint", "not a checkpoint"), ("--export", "is not an export")):
        answer = cli.json("db", "restored", "--why", "x", option, str(other), "--yes", code=1)
        assert says in answer["message"]
    assert cli.json("hold", "show")["held"] is False
