"""What an operator is told before, at and after a revocation, and what anybody can check without the installation."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from sqlalchemy import Connection, delete, insert, select, update

from deploy.checkup import work
from deploy.cli import main
from deploy.cli.unfinished import where_it_stopped
from deploy.installation import Installation
from deploy.settings import load
from identity.accounts.states import get_account
from identity.model import Credential
from identity.refresh.tables import refresh_intents
from identity.sql.sequence import next_number
from identity.tables import accounts
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.taking import EndedConsents, take_grant
from identity.withdrawals.withdrawal import Origin, WithdrawalState, settle
from pipeline.jobs.new_jobs import NewJob, insert_job
from pipeline.revocation.tables import revocation_pages, revocations
from pipeline.revoker.inquiry import SignalDoubt
from tests.deploy.conftest import Cli
from tests.docs.pages import blocks, page
from tests.ledger.revokers import quiet_revoker
from tests.ledgers import turn_taken


@pytest.fixture
def acme(cli: Cli) -> Cli:
    """A tenant with a service account at GitHub, and a queued job."""
    cli.json("tenants", "add", "acme")
    cli.json(
        "connections", "add", "github", "--client-id", "x",
        "--client-secret-file", "-", "--scopes", "issues:read,issues:write", input="secret",
    )  # fmt: skip
    cli.json("accounts", "add-static", "--tenant", "acme", "--connection", "github", "--token-file", "-", input="t0ken")
    with Installation(load(data_dir=cli.data_dir)) as at:
        workflow, now = at.workflows.get("link_pull_request"), at.now()
        at.write(
            lambda c: insert_job(
                c,
                NewJob(
                    id="job_1",
                    tenant="acme",
                    workflow=workflow,
                    triggered_by="ada",
                    event={},
                    config={},
                ),
                now=now,
            )
        )
    return cli


def advance(cli: Cli, revocation: str) -> None:
    with Installation(load(data_dir=cli.data_dir)) as at:
        assert quiet_revoker(at.ledger, at.signer, at.workflows).advance(revocation)


def test_a_dry_run_says_what_would_stop_and_revokes_nothing(acme: Cli) -> None:
    acme.json("workflows", "enable", "link_pull_request", "--tenant", "acme", "--config", "-", input="{}")
    told = acme.json("revoke", "account", "acme/github/acme.service", "--dry-run")
    assert told["jobs"] == [{"workflow": "link_pull_request", "state": "queued", "then": "stop", "jobs": 1}]
    (service,) = told["services"]
    assert (service["workflows"], service["unfinished_jobs"]) == (["link_pull_request"], 1)
    assert "nobody to act as at github" in acme("revoke", "account", "acme/github/acme.service", "--dry-run").output
    assert acme.json("revocations", "list") == []


def stick_leftover(c: Connection, id: str = "connect.9") -> None:
    """What a refused connect had won, when the provider was asked in vain."""
    now = datetime.now(UTC)
    row: dict[str, Any] = {"id": id, "origin": Origin.CONNECT, "credential": Credential.AUTHORIZATION_CODE}
    row |= {"account_id": c.execute(select(accounts.c.id)).scalar_one(), "generation": 0, "consented": 9}
    row |= {"state": WithdrawalState.STUCK, "access_sealed": b"sealed", "due_at": now, "created_at": now}
    c.execute(insert(withdrawals).values(**row, reason="asked 12 times: it answered 404"))


def test_what_is_stuck_at_the_provider_is_listed_and_asked_about_again(acme: Cli) -> None:
    made = acme.json("revoke", "account", "acme/github/acme.service", "--yes", "--reason", "left")["id"]
    assert acme.json("revocations", "list", "--stuck") == []
    assert acme.json("revocations", "retry", made, code=1)["asked_again"] == 0

    def stick(c: Connection) -> None:
        """As it is when the provider was asked in vain."""
        (account,) = c.execute(select(accounts.c.id)).scalars()
        number = c.execute(select(revocations.c.number)).scalar_one()
        now = datetime.now(UTC)
        taken = take_grant(c, get_account(c, account), EndedConsents(upto=number), revocation=made, now=now)
        assert taken is not None
        settle(c, taken, to=WithdrawalState.STUCK, reason="asked 12 times: it answered 502", now=now)

    with Installation(load(data_dir=acme.data_dir)) as at:
        at.write(stick)
    assert [one["id"] for one in acme.json("revocations", "list", "--stuck")] == [made]
    (told,) = (one for one in acme.json("doctor", "--offline", code=1)["findings"] if one["what"] == "revocations")
    assert (told["state"], f"aswhom revocations show {made}" in told["says"]) == ("wrong", True)
    with Installation(load(data_dir=acme.data_dir)) as at:
        for number in range(21):
            at.write(partial(stick_leftover, id=f"connect.{number}"))
        assert list(work.revocations(at))[-1].says.endswith("is stuck: see `aswhom revocations list --stuck`")
        others = delete(withdrawals).where(withdrawals.c.id.like("connect.%"), withdrawals.c.id != "connect.9")
        at.write(lambda c: c.execute(others).rowcount)
        at.write(partial(stick_leftover, id="connect.8"))
    first = acme("revocations", "list", "--stuck", "--limit", "1", "--json")
    assert [one["id"] for one in json.loads(first.stdout)] == [made, "connect.9"], "neither hides the other"
    assert first.stderr == "of the refused connects only the first 1 are shown: say --limit\n"
    assert acme.json("revocations", "give-up", "connect.8", "--yes")["given_up"] is True
    assert acme.json("revocations", "give-up", "connect.9", "--yes")["given_up"] is True
    assert acme.json("revocations", "retry", made)["asked_again"] == 1
    assert acme.json("revocations", "list", "--stuck") == []


def test_what_a_refused_connect_had_won_and_is_stuck_is_listed_beside_and_asked_about_again_or_given_up(
    acme: Cli,
) -> None:
    """A callback that was refused because of a revocation won a live token, which is on no receipt."""
    acme.json("revocations", "give-up", "connect.9", "--yes", code=1)

    def state() -> tuple[str, bytes | None]:
        with Installation(load(data_dir=acme.data_dir)) as at:
            row = at.read(lambda c: c.execute(select(withdrawals.c.state, withdrawals.c.access_sealed)).one())
        return row.state, row.access_sealed

    with Installation(load(data_dir=acme.data_dir)) as at:
        at.write(stick_leftover)
    file = acme.data_dir / "stuck.json"
    assert acme.json("revocations", "list", "--stuck", "--output", str(file))["connects"] == 1
    assert [one["id"] for one in json.loads(file.read_text())] == ["connect.9"]
    (listed,) = acme.json("revocations", "list", "--stuck")
    assert (listed["id"], listed["kind"], listed["state"]) == ("connect.9", "connect", "stuck")
    assert "404" in listed["reason"]
    (told,) = (one for one in acme.json("doctor", "--offline", code=1)["findings"] if one["what"] == "revocations")
    assert (told["state"], "aswhom revocations retry connect.9" in told["says"]) == ("wrong", True)
    assert acme.json("revocations", "retry", "connect.9")["asked_again"] == 1
    assert state() == ("pending", b"sealed")
    assert acme.json("revocations", "list", "--stuck") == []
    assert acme.json("revocations", "give-up", "connect.9", "--yes", code=1)["given_up"] is False
    with Installation(load(data_dir=acme.data_dir)) as at:
        at.write(lambda c: c.execute(update(withdrawals).values(state=WithdrawalState.STUCK)).rowcount)
    assert acme.json("revocations", "give-up", "connect.9", "--yes")["given_up"] is True
    assert state() == ("given_up", None)


def test_a_receipt_is_verified_with_the_public_key_alone(acme: Cli, tmp_path: Path) -> None:
    made = acme.json("revoke", "tenant", "acme", "--yes", "--reason", "left")
    assert "no signed receipt" in acme.json("revocations", "verify", made["id"], code=1)["message"]
    advance(acme, made["id"])
    assert acme.json("revocations", "verify", made["id"])["verified"] is True
    stored = acme.json("revocations", "show", made["id"])
    kept, key = tmp_path / "receipt.json", tmp_path / "key.pem"
    kept.write_text(json.dumps(stored))
    key.write_text(acme.json("keys", "public")["public_key"])

    def verify() -> Any:
        """Where there is no installation."""
        nowhere = str(tmp_path / "nowhere")
        words = ["revocations", "verify", str(kept), "--key", str(key), "--data-dir", nowhere, "--json"]
        return json.loads(CliRunner().invoke(main, words).stdout)

    assert verify() == {"verified": True, "revocation": made["id"], "revision": 1}
    (recipe,) = blocks(page("revocation.md"), "python")  # for programs of others
    given = {"json": json, "urlsafe_b64decode": urlsafe_b64decode, "load_pem_public_key": load_pem_public_key}
    exec(recipe, given | {"document": stored, "pem": key.read_bytes()})
    altered = {**stored, "receipt": {**stored["receipt"], "in_flight": ["none"]}}
    with pytest.raises(InvalidSignature):
        exec(recipe, given | {"document": altered, "pem": key.read_bytes()})
    kept.write_text(json.dumps(altered))
    assert verify()["verified"] is False
    without_key = CliRunner().invoke(main, ["revocations", "verify", str(kept), "--data-dir", str(tmp_path / "no")])
    assert "give the public key with --key FILE" in without_key.output
    key.write_text("no key")
    assert "no public key" in verify()["message"]
    kept.unlink()
    assert f"there is no file {kept}" in acme.json("revocations", "verify", str(kept), code=1)["message"]
    assert "there is no file nope.json" in acme.json("revocations", "verify", "nope.json", code=1)["message"]
    assert "there is no revocation nope" in acme.json("revocations", "verify", "nope", code=1)["message"]


@pytest.mark.parametrize(
    ("kind", "key", "why"),
    [
        ("agent", "devops-assistant", "an agent acts with credentials that others use too"),
        ("tenant", "acme", "no credential was held that it could end"),
    ],
)
def test_that_a_provider_was_not_asked_is_told_with_why(acme: Cli, kind: str, key: str, why: str) -> None:
    made = acme.json("revoke", kind, key, "--yes")["id"]
    advance(acme, made)
    assert f"The provider was not asked: {why}." in acme("revocations", "show", made).output


def test_a_request_for_a_token_that_was_on_the_wire_is_told(acme: Cli) -> None:
    def begin(c: Connection) -> None:
        now = datetime.now(UTC)
        row = {"id": "ref-1", "account_id": c.execute(select(accounts.c.id)).scalar_one(), "opened": next_number(c)}
        row |= dict.fromkeys(("generation", "consented", "presented"), 1)
        row |= dict.fromkeys(("started_at", "send_before", "settled_by"), now)
        c.execute(insert(refresh_intents), row | {"state": "open"})

    with Installation(load(data_dir=acme.data_dir)) as at:
        at.write(begin)
    made = acme.json("revoke", "tenant", "acme", "--yes")["id"]
    advance(acme, made)
    (told,) = acme.json("revocations", "show", made)["receipt"]["token_requests"]
    assert (told["id"], told["kind"], told["outcome"]) == ("ref-1", "refresh", "open")
    shown = acme("revocations", "show", made).output
    assert "1 token request(s) were in flight" in shown
    assert "ref-1" in shown


def test_of_jobs_that_skip_is_told_what_was_known_when_the_receipt_was_written(acme: Cli) -> None:
    """A stricter step may have stopped them since."""
    made = acme.json("revoke", "tenant", "acme", "--yes")["id"]
    advance(acme, made)
    with Installation(load(data_dir=acme.data_dir)) as at:
        (told,) = at.read(lambda c: c.execute(select(revocations.c.receipt)).scalars().all())
        counted = update(revocations).values(receipt={**told, "skipping_jobs": 2})
        at.write(lambda c: c.execute(counted).rowcount)
    shown = acme("revocations", "show", made).output
    assert "2 job(s) had not finished by then, and could go on without the steps that needed it." in shown


def test_what_is_told_of_a_signal_is_the_receipts_word_and_not_what_stands_beside_it(acme: Cli) -> None:
    made = acme.json("revoke", "tenant", "acme", "--yes")["id"]
    advance(acme, made)
    with Installation(load(data_dir=acme.data_dir)) as at:
        altered = update(revocations).where(revocations.c.id == made).values(doubt=SignalDoubt.ALIVE)
        at.write(lambda c: c.execute(altered).rowcount)
    shown = acme("revocations", "show", made)
    assert shown.exit_code == 1
    assert "THE RECEIPT DOES NOT HOLD" in shown.output
    assert "they differ in doubt" in shown.output
    assert "may connect again" not in shown.output


def test_the_jobs_of_a_receipt_are_listed_by_page_and_held_against_it(acme: Cli) -> None:
    made = acme.json("revoke", "tenant", "acme", "--yes")
    advance(acme, made["id"])
    listed = acme.json("revocations", "jobs", made["id"], "--page", "1")
    assert ([page["cancelled"] for page in listed["pages"]], listed["altered"]) == ([["job_1"]], [])
    assert acme("revocations", "jobs", made["id"]).output == "cancelled job_1\n"
    assert "1 page(s)" in acme.json("revocations", "jobs", made["id"], "--page", "2", code=1)["message"]
    shown = acme("revocations", "show", made["id"]).output
    assert "1 job(s) cancelled" in shown
    assert "provider was not asked" in shown


def test_the_pages_of_a_receipt_are_verified_without_the_ledger_and_none_may_be_missing(
    acme: Cli, tmp_path: Path
) -> None:
    made = acme.json("revoke", "tenant", "acme", "--yes")["id"]
    advance(acme, made)
    receipt, pages, key = tmp_path / "receipt.json", tmp_path / "pages.json", tmp_path / "key.pem"
    receipt.write_text(json.dumps(acme.json("revocations", "show", made)))
    key.write_text(acme.json("keys", "public")["public_key"])
    listed = acme.json("revocations", "jobs", made)
    (page,) = listed["pages"]

    def verify(*pages_there: Any) -> tuple[int, str]:
        pages.write_text(json.dumps({**listed, "pages": pages_there}))
        words = ["revocations", "verify", str(receipt), "--key", str(key), "--pages", str(pages)]
        done = CliRunner().invoke(main, [*words, "--data-dir", str(tmp_path / "nowhere")])
        return done.exit_code, done.output

    assert verify(page)[0] == 0
    assert "so do its 1 page(s)" in verify(page)[1]
    altered = verify({**page, "cancelled": ["job_2"]})
    assert (altered[0], f"{page['number']} altered" in altered[1]) == (1, True)
    assert "missing" in verify()[1]
    assert "there twice" in verify(page, page)[1]
    assert verify({**page, "number": page["number"] + 1})[0] == 1
    assert "holds no pages" in verify("page")[1]
    with Installation(load(data_dir=acme.data_dir)) as at:
        at.write(lambda c: c.execute(delete(revocation_pages)).rowcount)
    assert acme.json("revocations", "jobs", made, code=1)["missing"] == [page["number"]]


def test_an_account_is_narrowed_after_a_look_at_who_needs_what_it_loses(acme: Cli) -> None:
    narrow = ("accounts", "narrow", "acme/github/acme.service", "--scopes", "issues:read,issues:read")
    told = acme.json(*narrow, "--dry-run")
    assert told["drops"] == ["issues:write"]
    assert told["needed_by"] == []  # what needs it is declared for users alone
    assert (told["calls_in_flight"], told["unknown_calls"], told["jobs"]) == (0, 0, {"link_pull_request": 1})
    assert "unfinished jobs that may come to one: 1 of link_pull_request" in acme(*narrow, "--dry-run").output
    assert acme.json("accounts", "show", "acme/github/acme.service")["scopes"] == ["issues:read", "issues:write"]
    assert acme(*narrow).exit_code == 2  # it asks first
    assert acme.json(*narrow, "--yes")["keeps"] == ["issues:read"]
    assert acme.json("accounts", "show", "acme/github/acme.service")["scopes"] == ["issues:read"]
    assert "nothing to narrow" in acme.json(*narrow, "--yes", code=1)["message"]
    assert "account.narrowed" in {row["kind"] for row in acme.json("audit", "search")}


def test_a_narrowing_is_listed_and_shown_and_its_receipt_verified_with_the_public_key_alone(
    acme: Cli, tmp_path: Path
) -> None:
    service = "acme/github/acme.service"
    done = acme.json("accounts", "narrow", service, "--scopes", "issues:read", "--yes", "--reason", "a leak")
    made = done["receipt"]
    (listed,) = acme.json("revocations", "list")
    assert (listed["id"], listed["kind"], listed["key"], listed["state"]) == (made, "narrowing", service, "effective")
    fresh = acme("revocations", "show", made).output
    assert f"account {service} was narrowed to issues:read by" in fresh
    assert "It is effective: there is no receipt yet." in fresh
    advance(acme, made)
    told = acme("revocations", "show", made).output
    for said in ("issues:write taken, issues:read kept", "The signature holds", "used by nobody here", "a leak"):
        assert said in told
    assert acme.json("revocations", "verify", made)["verified"] is True
    stored, key, kept = acme.json("revocations", "show", made), tmp_path / "key.pem", tmp_path / "receipt.json"
    key.write_text(acme.json("keys", "public")["public_key"])

    def verify(receipt: dict[str, Any]) -> bool:
        """Where there is no installation."""
        kept.write_text(json.dumps({**stored, "receipt": receipt}))
        nowhere = str(tmp_path / "nowhere")
        words = ["revocations", "verify", str(kept), "--key", str(key), "--data-dir", nowhere, "--json"]
        return bool(json.loads(CliRunner().invoke(main, words).stdout)["verified"])

    receipt = stored["receipt"]
    assert (receipt["number"], receipt["effective_at"]) == (done["number"], stored["effective_at"])
    assert verify(receipt)
    assert not verify({**receipt, "narrowing": {**receipt["narrowing"], "took": []}})
    assert not verify({**receipt, "effective_at": receipt["quiesced_at"]})


@pytest.mark.parametrize(
    "command",
    [
        ("accounts", "narrow", "acme/github/acme.service", "--scopes", "issues:read", "--yes"),
        ("tenants", "stop", "acme", "--yes"),
        ("revoke", "tenant", "acme", "--yes"),
        ("revoke", "account", "acme/github/acme.service", "--yes"),
    ],
)
def test_what_takes_authority_away_waits_for_nobodys_turn(acme: Cli, command: tuple[str, ...]) -> None:
    with Installation(load(data_dir=acme.data_dir)) as at, turn_taken(at.ledger):
        acme.json(*command)


def test_narrowing_names_what_would_wait_by_what_the_scopes_imply(acme: Cli) -> None:
    acme.json(
        "accounts", "add-static", "--tenant", "acme", "--connection", "github", "--token-file", "-",
        "--scopes", "pull_requests:write,issues:read", input="t0ken",
    )  # fmt: skip
    told = acme.json("accounts", "narrow", "acme/github/acme.service", "--scopes", "issues:read", "--dry-run")
    assert told["drops"] == ["pull_requests:write"]
    assert "daily_digest: github.ListPulls" in told["needed_by"]  # it reads them, which writing includes


def step(position: int, state: str, *attempts: str, **more: Any) -> dict[str, Any]:
    tries = [{"id": f"try-{position}", "state": one, "purpose": "call"} for one in attempts]
    plain = {"adopted_from": None, "error": None, "reason": "named", "kind": "user", "principal": "ada"}
    return {"position": position, "state": state, "action": f"x.Act{position}", "attempts": tries, **plain, **more}


def test_each_way_in_which_a_step_and_its_compensation_may_have_ended_is_told() -> None:
    steps = [
        step(1, "done", "effect"),
        step(2, "done", adopted_from="step_9"),
        step(3, "unknown", "unknown"),
        step(4, "skipped", error="account was revoked"),
        step(5, "refused", error="no principal"),
        step(6, "open", "no_effect"),
        step(7, "open", "open"),
    ]
    followed: list[dict[str, Any]] = [
        {"position": 1, "job_id": "job_2", "by_state": "done", "reason": None},
        {"position": 2, "job_id": None, "by_state": None, "reason": "nobody is left"},
        {"position": 6, "job_id": "job_3", "by_state": "dead", "reason": None},
        {"position": 7, "job_id": "job_4", "by_state": "cancelled", "reason": None},
    ]
    told = " ".join(where_it_stopped({"id": "job_1", "state": "cancelled"}, steps, followed))
    for said in (
        "x.Act1, took effect, as user ada",
        "x.Act2, was done once by another job",
        "x.Act3, was sent, and whether it took effect is unknown: look, then `aswhom jobs resolve job_1 --call try-3`",
        "x.Act4, was skipped: account was revoked",
        "x.Act5, was refused and never sent",
        "x.Act6, took no effect.",
        "x.Act7, was sent, and may still be on its way.",
        "Step 1 was compensated by job_2",
        "Step 2 was not compensated: nobody is left",
        "Step 6 was not compensated: job_3 is dead, `aswhom jobs show` says why.",
        "Step 7 was not compensated: job_4 is cancelled, `aswhom jobs show` says why.",
    ):
        assert said in told
    assert list(where_it_stopped({"id": "job_1", "state": "done"}, steps[:1], [])) == []
