"""`audit`: one record answers as whom, and the record is taken elsewhere and verified there."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from deploy.installation import Installation
from deploy.settings import load
from identity import audit
from identity.audit import Act, AsWhom, Work
from identity.audit import verification as chain_verification
from identity.audit.handovers import hand_over
from identity.keys.signing import Signer
from identity.keys.trusted_keys import key_id
from identity.model import AccessPattern
from identity.principals import ensure_tenant
from tests.deploy.conftest import Cli
from tests.ledger.revokers import quiet_revoker


@pytest.fixture
def recorded(cli: Cli) -> Cli:
    """A step as the user, one as the platform, and something of another tenant, sealed."""

    def row(c: Any, id: str, whom: AsWhom, work: Work, **more: Any) -> None:
        earlier = at.now() - timedelta(hours=1)
        audit.record(c, "attempt.opened", whom, work, id=id, at=earlier, outcome="open", **more)

    for_ada = AsWhom(tenant="acme", agent="devops-assistant", on_behalf_of="acme.ada")
    as_ada = replace(for_ada, principal="acme.ada", pattern=AccessPattern.DELEGATED, account="acc_1", generation=3)
    as_service = replace(for_ada, principal="acme.service", pattern=AccessPattern.SERVICE)
    as_bob = AsWhom(tenant="globex", agent="devops-assistant", principal="globex.bob")
    with Installation(load(data_dir=cli.data_dir)) as at:
        at.write(
            lambda c: row(
                c,
                "att_1.opened",
                as_ada,
                Work(job="job_1", action="github.Comment"),
                reason="named by the workflow",
                detail={"consented": 42},
            )
        )
        at.write(lambda c: row(c, "att_2.opened", as_service, Work(action="slack.PostMessage")))
        at.write(lambda c: row(c, "att_3.opened", as_bob, Work()))
    cli("audit", "checkpoint")
    return cli


def test_one_record_answers_as_whom_by_which_agent_on_whose_behalf_and_why(recorded: Cli) -> None:
    told = " ".join(recorded("audit", "show", "att_1.opened").output.split())
    for answer in (
        "as whom user acme.ada", "by which agent devops-assistant", "on behalf of acme.ada",
        "account acc_1, generation 3", "consent the one that began at ledger number 42",
        "why named by the workflow", "in the chain 1",
    ):  # fmt: skip
        assert answer in told
    as_platform = recorded.json("audit", "show", "att_2.opened")
    assert (as_platform["as_whom"], as_platform["sealed_as"]) == ("the service (acme.service)", 2)
    assert "audit search" in recorded.json("audit", "show", "att_9", code=1)["message"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--tenant", "acme"], ["att_2.opened", "att_1.opened"]),
        (["--principal", "acme.ada"], ["att_2.opened", "att_1.opened"]),
        (["--action", "github.Comment", "--kind", "attempt"], ["att_1.opened"]),
        (["--account", "acc_1", "--agent", "devops-assistant", "--job", "job_1"], ["att_1.opened"]),
        (["--outcome", "open", "--limit", "1"], ["att_3.opened"]),
        (["--since", "+0m"], []),
        (["--until", "2020-01-01T00:00Z"], []),
    ],
)
def test_records_are_searched(recorded: Cli, options: list[str], found: list[str]) -> None:
    assert [row["id"] for row in recorded.json("audit", "search", *options)] == found


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kind", "attempt.opend"], "no recent record is of kind attempt.opend: there are attempt.opened"),
        (["--kind", "attemp"], "no recent record is of kind attemp: there are attempt.opened"),
        (["--action", "github.Coment"], "no action is named github.Coment: there are "),
        (["--tenant", "acm"], "there is no tenant acm: `aswhom tenants list` shows them"),
        (["--kind", "attempt", "--until", "2020-01-01T00:00Z"], ""),
    ],
)
def test_what_no_record_can_be_of_is_told(recorded: Cli, options: list[str], said: str) -> None:
    answer = recorded("audit", "search", *options)
    assert (answer.exit_code, answer.stdout) == (0, "No such record\n")
    assert said in answer.stderr
    assert bool(said) is bool(answer.stderr)


def test_an_export_is_verified_on_another_machine_with_the_public_key_alone(recorded: Cli, tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "audit.jsonl", Cli(tmp_path / "elsewhere")
    pem, kept = tmp_path / "aswhom.pem", tmp_path / "checkpoint"
    pem.write_text(recorded.json("keys", "public")["public_key"])
    kept.write_text(recorded("audit", "checkpoint").stdout)
    assert recorded("audit", "export", "--after", "1000", "--output", str(here)).exit_code != 0
    assert not list(tmp_path.glob("*audit.jsonl*"))  # so the corrected command is not refused
    assert recorded("audit", "export", "--output", str(here)).exit_code == 0
    assert list(tmp_path.glob("*audit.jsonl*")) == [here]
    assert "exists" in recorded("audit", "export", "--output", str(here)).output

    verify = ("audit", "verify", str(here), "--key", str(pem))
    held = elsewhere.json(*verify, "--checkpoint", str(kept))
    assert (held["verified"], held["count"], held["withheld"]) == (True, 3, 0)
    assert not elsewhere.data_dir.exists()

    here.write_text(here.read_text().replace("acme.service", "acme.ada"))
    broken = elsewhere.json(*verify, code=1)
    assert (broken["verified"], broken["seq"]) == (False, 2)


def test_a_file_that_cannot_be_written_or_read_is_told_in_a_sentence(recorded: Cli, tmp_path: Path) -> None:
    nowhere = recorded.json("audit", "export", "--output", str(tmp_path / "no" / "such" / "file"), code=1)
    assert "cannot be written: No such file or directory" in nowhere["message"]
    kept = tmp_path / "checkpoint"
    kept.write_text(recorded("audit", "checkpoint").stdout, encoding="utf-16")
    assert "not a text in UTF-8" in recorded.json("audit", "verify", "--checkpoint", str(kept), code=1)["message"]


def test_what_a_restored_ledger_will_lack_goes_into_new_files_that_are_whole(recorded: Cli, tmp_path: Path) -> None:
    made = [revoked(recorded) for _ in range(2)][::-1]
    kept, listed = tmp_path / "checkpoint.json", tmp_path / "revocations.json"
    assert recorded.json("revocations", "list", "--limit", "1", "--output", str(listed))["revocations"] == 2
    assert [row["id"] for row in json.loads(listed.read_text())] == made
    assert recorded.json("audit", "checkpoint", "--output", str(kept))["seq"] == json.loads(kept.read_text())["seq"]
    assert recorded.json("audit", "verify", "--checkpoint", str(kept))["verified"]
    before = kept.read_bytes(), listed.read_bytes()
    for path in (recorded.data_dir / "ledger.db").parent.glob("ledger.db*"):
        path.unlink()  # and cron comes again, by names that are taken, and by new ones
    for name in ("", ".new"):
        recorded.json("audit", "checkpoint", "--output", f"{kept}{name}", code=1)
        recorded.json("revocations", "list", "--output", f"{listed}{name}", code=1)
    assert (kept.read_bytes(), listed.read_bytes()) == before
    assert sorted(path.name for path in tmp_path.glob("*.json*")) == ["checkpoint.json", "revocations.json"]


def test_a_whole_verification_is_stated_and_the_next_one_goes_on_behind_it(recorded: Cli, tmp_path: Path) -> None:
    said, kept = str(tmp_path / "verified.json"), tmp_path / "checkpoint"
    kept.write_text(recorded("audit", "checkpoint").stdout)
    whole = recorded.json("audit", "verify", "--statement", said)
    assert (whole["whole"], whole["count"]) == (True, 3)
    recorded.json("tenants", "add", "initech")
    recorded("audit", "checkpoint")
    later = recorded.json("audit", "verify", "--since", said)
    assert (later["whole"], later["first"], later["count"]) == (False, 4, 1)
    told = recorded("audit", "verify", "--since", said).output
    assert "the chain holds: 1 record(s); records before 4 were verified at" in told

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "deploy.cli.audit_chain.verify", None
        )  # the chain is not walked for a statement that nobody can write
        for nowhere, why in ((said, "exists"), (str(tmp_path / "none" / "said"), "its directory is missing")):
            assert why in recorded.json("audit", "verify", "--statement", nowhere, code=1)["message"]
    assert "a checkpoint is none" in recorded.json("audit", "verify", "--since", str(kept), code=1)["message"]
    for wrong in (("--since", said, "--statement", f"{said}.new"), (str(kept), "--since", said)):
        assert recorded("audit", "verify", *wrong).exit_code == 2


def test_the_result_of_a_walk_is_told_even_if_its_statement_cannot_be_written(
    recorded: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, ours = tmp_path / "verified.json", chain_verification.verify

    def walk(*given: Any, **more: Any) -> Any:
        said.write_text("somebody else's")
        return ours(*given, **more)

    recorded("audit", "checkpoint")
    monkeypatch.setattr("deploy.cli.audit_chain.verify", walk)
    assert recorded.json("audit", "verify", "--statement", str(said), code=1)["verified"]
    assert said.read_text() == "somebody else's"


def test_what_does_not_hold_is_not_stated(recorded: Cli, tmp_path: Path) -> None:
    with Installation(load(data_dir=recorded.data_dir)) as at:
        alter = ("drop trigger audit_no_update", "update audit set reason = 'x' where id = 'att_2.opened'")
        at.write(lambda c: [c.execute(text(each)).rowcount for each in alter])
    said = tmp_path / "verified.json"
    assert not recorded.json("audit", "verify", "--statement", str(said), code=1)["verified"]
    assert not said.exists()


def test_a_checkpoint_that_is_too_old_to_be_compared_is_a_problem(recorded: Cli, tmp_path: Path) -> None:
    kept, late = tmp_path / "checkpoint", tmp_path / "late.jsonl"
    kept.write_text(recorded("audit", "checkpoint").stdout)
    last = json.loads(kept.read_text())["seq"]
    recorded("tenants", "add", "globex")
    recorded("audit", "checkpoint")
    recorded("audit", "export", "--after", str(last + 1), "--output", str(late))
    verify = ("audit", "verify", str(late))
    assert recorded.json(*verify)["verified"]
    told = recorded.json(*verify, "--checkpoint", str(kept), code=1)
    assert (told["verified"], told["compared"]) == (True, False)
    assert "WAS NOT COMPARED" in recorded(*verify, "--checkpoint", str(kept)).output


def test_a_file_that_is_left_out_is_told_of_as_what_it_is_and_each_export_says_where_the_next_goes_on(
    recorded: Cli, tmp_path: Path
) -> None:
    files = [str(tmp_path / f"{name}.jsonl") for name in ("early", "middle", "late")]
    ends = [0]
    for file in files:
        recorded.json("tenants", "add", Path(file).stem)
        recorded("audit", "checkpoint")
        told = recorded.json("audit", "export", "--after", str(ends[-1]), "--output", file)
        assert (told["file"], told["records"]) == (file, told["after"] - ends[-1])
        ends.append(told["after"])
    assert recorded.json("audit", "verify", *files)["verified"]
    why = recorded.json("audit", "verify", files[0], files[2], code=1)["why"]
    assert why.startswith(
        f"late.jsonl goes on behind link {ends[2]}, and the file before it ends at {ends[1]}: an export"
    )


def test_a_tenants_export_goes_to_standard_output(recorded: Cli) -> None:
    printed = recorded("audit", "export", "--tenant", "globex").stdout
    links = [json.loads(line) for line in printed.splitlines()]
    assert [link["row"]["id"] for link in links if "row" in link] == ["att_3.opened"]
    assert "acme" not in printed


def test_without_a_record_there_is_nothing_to_keep(cli: Cli) -> None:
    assert "nothing is sealed" in cli.json("audit", "checkpoint", code=1)["message"]
    assert cli.json("audit", "verify")["count"] == 0


def test_what_was_signed_before_a_rotation_verifies_here_and_elsewhere(recorded: Cli, tmp_path: Path) -> None:
    old, new = tmp_path / "old.pem", tmp_path / "new.pem"
    early, late = tmp_path / "early.jsonl", tmp_path / "late.jsonl"
    kept, receipt = tmp_path / "checkpoint", tmp_path / "receipt.json"
    receipt.write_text(recorded("revocations", "show", revoked(recorded), "--json").stdout)
    old.write_text(recorded("keys", "public").stdout)
    kept.write_text(recorded("audit", "checkpoint").stdout)
    told = recorded("audit", "export", "--output", str(early)).stdout

    rotated = recorded.json("keys", "rotate-signing", "--yes")
    later = revoked(recorded)
    new.write_text(recorded("keys", "public").stdout)
    last = json.loads(kept.read_text())["seq"]
    assert told.endswith(f"the next export is `--after {last}`\n")
    recorded("audit", "checkpoint")
    recorded("audit", "export", "--after", str(last), "--output", str(late))
    assert recorded.json("audit", "verify", "--checkpoint", str(kept))["verified"]
    assert recorded.json("audit", "search", "--kind", "signing_key")[0]["detail"]["kid"] == rotated["kid"]
    for of in (json.loads(receipt.read_text())["id"], later):
        assert recorded.json("revocations", "show", of)["verified"]

    elsewhere = Cli(tmp_path / "elsewhere")
    for key, works in ((new, 0), (old, 1)):
        files = ("audit", "verify", str(early), str(late), "--key", str(key), "--checkpoint", str(kept))
        assert elsewhere.json(*files, code=works)["verified"] is (works == 0)
    for key in (new, old):
        assert elsewhere.json("revocations", "verify", str(receipt), "--key", str(key))["verified"]
    assert not elsewhere.data_dir.exists()


def test_an_interrupted_rotation_is_finished_by_the_next(recorded: Cli) -> None:
    with Installation(load(data_dir=recorded.data_dir)) as at:
        signer, now = Signer.from_seed(at.settings.key_files().next_signing_key()), at.now()
        at.write(lambda c: hand_over(c, at.signer, signer, Act(audit_id="aud_1", by="test", now=now)))
    assert "was rotated" in recorded.json("audit", "checkpoint", code=1)["message"]
    assert recorded.json("keys", "rotate-signing", "--yes")["kid"] == key_id(signer.public_key())
    assert recorded.json("audit", "verify")["verified"]
    assert recorded.json("keys", "rotate-signing", "--yes")["kid"] != key_id(signer.public_key())


@pytest.mark.parametrize(
    ("altered", "why"),
    [
        ("digest = cast(x'ff' as text)", "the audit row of link 3 or its seal was altered"),
        ("signature = cast(x'ff' as text)", "the audit row of link 3 or its seal was altered"),
        ("audit_id = cast(x'ff' as text)", "the audit row of link 3 is missing"),
        ("sealed_at = 'yesterday'", "or its seal was altered"),
    ],
)
def test_a_last_seal_that_cannot_be_read_is_called_altered_and_exported_as_it_is(
    recorded: Cli, tmp_path: Path, altered: str, why: str
) -> None:
    alter = ("drop trigger audit_seals_no_update", f"update audit_seals set {altered} where seq = 3")
    with Installation(load(data_dir=recorded.data_dir)) as at:
        at.write(lambda c: [c.execute(text(each)).rowcount for each in alter])
    told = recorded.json("audit", "verify", code=1)
    assert (told["seq"], told["why"].endswith(why)) == (3, True)
    exported = tmp_path / "audit.jsonl"
    assert recorded("audit", "export", "--output", str(exported)).exit_code == 0
    assert recorded.json("audit", "verify", str(exported), code=1)["seq"] == 3
    told = recorded.json("audit", "checkpoint", code=1)
    assert "the audit's chain is not sealed on: its last link cannot be read" in told["message"]


def revoked(cli: Cli) -> str:
    """A revocation with its receipt."""
    with Installation(load(data_dir=cli.data_dir)) as at:
        at.write(lambda c: ensure_tenant(c, id="acme", name="Acme", now=at.now()))
        made: str = cli.json("revoke", "tenant", "acme", "--yes")["id"]
        assert quiet_revoker(at.ledger, at.signer, at.workflows).advance(made)
    return made


def test_a_folder_of_exports_is_gone_on_with_after_the_last(recorded: Cli, tmp_path: Path) -> None:
    recorded("audit", "export", "--output", str(tmp_path / "audit-2026-01-01T000000.jsonl"))
    recorded.json("tenants", "add", "initech")
    recorded("audit", "checkpoint")
    recorded("audit", "export", "--into", str(tmp_path))
    first, second = sorted(tmp_path.glob("audit-*.jsonl"))
    assert (
        json.loads(second.read_text().splitlines()[0])["seq"] == json.loads(first.read_text().splitlines()[-1])["seq"]
    )
    assert recorded("audit", "verify", str(first), str(second)).exit_code == 0


def test_a_folder_says_all_that_an_export_needs_and_holds_nothing_but_exports(recorded: Cli, tmp_path: Path) -> None:
    assert recorded("audit", "export", "--into", str(tmp_path), "--after", "1").exit_code == 2
    (tmp_path / "audit-torn.jsonl").write_text("")
    assert (
        "audit-torn.jsonl does not end as an export does" in recorded("audit", "export", "--into", str(tmp_path)).output
    )
