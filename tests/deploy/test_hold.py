"""`aswhom hold` and `aswhom db restored`, and what `doctor` says while nothing goes out."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import update

from deploy.installation import Installation
from deploy.settings import load
from identity.audit.statements import sign
from identity.model import Scope, ScopeKind
from identity.tables import ledger_numbers
from pipeline.ledger.restored import GAP
from pipeline.model import BEAT
from pipeline.revocation import declare
from pipeline.revocation.inquiry import SignalDoubt
from pipeline.tables import schedules
from tests.deploy.conftest import Cli, told
from tests.heartbeats import ticked


def test_a_hold_is_set_shown_and_released_and_doctor_tells_of_it(cli: Cli) -> None:
    nothing = {"calls_out": 0, "requests_out": 0, "doubted": []}
    assert cli.json("hold", "show") == {"held": False, "changed": False, **nothing}
    said = cli.json("hold", "set", "--why", "the provider's incident")
    assert (said["held"], said["changed"], said["why"]) == (True, True, "the provider's incident")
    assert said["by"].startswith("cli:")
    again = cli.json("hold", "set", "--why", "another reason")
    assert (again["changed"], again["why"]) == (False, "the provider's incident")
    assert "held already" in cli("hold", "set", "--why", "another reason").output
    assert "say why" in cli("hold", "set", "--why", " ").output
    assert "the provider's incident. Nothing is out" in cli("hold", "show").output
    ((state, says),) = told(cli, "held")
    assert state == "unknown"
    assert "nothing goes out, held since" in says
    assert "the provider's incident. `aswhom hold release` ends it" in says
    assert "Say so with --yes" in cli("hold", "release").output
    assert cli.json("hold", "release", "--yes") == {"held": False, "changed": True}
    assert cli.json("hold", "release") == {"held": False, "changed": False}
    assert told(cli, "held") == []


def test_a_signal_that_may_be_a_replay_is_told_of_before_the_release(cli: Cli) -> None:
    """Once its token has expired nobody can tell any more."""
    cli.json("tenants", "add", "acme")
    scope = Scope(kind=ScopeKind.TENANT, key="acme")
    with Installation(load(data_dir=cli.data_dir)) as at:
        made = partial(declare, scope=scope, tenant="acme", source="x", by="github", reason="signal", now=at.now())
        for id, doubt in (("rev-1", None), ("rev-2", SignalDoubt.OPEN)):
            at.write(partial(made, id=id, doubt=doubt))
    cli.json("hold", "set", "--why", "a drill")
    assert cli.json("hold", "show")["doubted"] == ["rev-2"]
    assert "may be a replay wait for their provider's word (rev-2)" in cli("hold", "show").output
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
    assert "Say so with --yes" in cli("db", "restored", *given).output
    assert cli.json("hold", "show")["held"] is False
    done = cli.json("db", "restored", *given, "--yes")
    assert done["numbers_after"] == done["last_number"] + GAP
    assert cli.json("hold", "show")["why"] == "the disk died"
    (record,) = cli.json("audit", "search", "--kind", "ledger.restored")
    assert record["reason"].endswith(": the disk died")
    assert cli.json("audit", "show", record["id"])["detail"]["lost"]["seq"] == 1_000
    said = cli("db", "restored", "--why", "again", "--yes").output
    assert "aswhom hold release" in said
    assert "1. `aswhom audit verify" in said
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
    assert before.endswith(": the provider's incident")


def test_a_file_that_is_spoilt_is_not_marked_as_restored(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    with closing(sqlite3.connect(cli.data_dir / "ledger.db")) as opened, opened:
        opened.execute("delete from tenants")  # as pages of another ledger's log would leave it
    said = cli.json("db", "restored", "--why", "the disk died", "--yes", code=1)["message"]
    assert "refers to a row of tenants that is not there. Did a -wal of another ledger lie beside it?" in said
    assert cli.json("hold", "show")["held"] is False


def test_what_is_no_checkpoint_or_no_export_marks_nothing(cli: Cli, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("{}")
    for option, says in (("--lost-checkpoint", "not a checkpoint"), ("--export", "is not an export")):
        answer = cli.json("db", "restored", "--why", "x", option, str(other), "--yes", code=1)
        assert says in answer["message"]
    assert cli.json("hold", "show")["held"] is False
