"""`tenants delete`: nothing of the tenant's opens, no credential of it is left, and the audit is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, func, insert, select, update

from deploy.installation import Installation
from deploy.settings import load
from identity.errors import BadInput
from identity.refresh.intents import store_answer
from identity.refresh.out_of_date import OutOfDate
from identity.refresh.tables import refresh_intents
from identity.sealed.rewrap import SEALED
from identity.tenant_deletion import shred
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawal import WithdrawalState
from pipeline.revocation.tables import revocations
from tests.deploy.conftest import Cli

NOW = ("--yes", "--timeout", "0")
NOON = ("--workflow", "daily_digest", "--cron", "0 12 * * *")
DIGEST = '{"repo": "acme/shop", "channel": "C0000000001"}'


@pytest.fixture
def two(cli: Cli) -> Cli:
    """Two tenants, each with a connection and an account of its own."""
    for tenant in ("acme", "globex"):
        cli.json("tenants", "add", tenant)
        connection = ("connections", "add", "github", "--id", f"gh-{tenant}", "--tenant", tenant)
        cli.json(*connection, "--client-id", "Iv1", "--client-secret-file", "-", input="s3cret")
        account = ("accounts", "add-static", "--tenant", tenant, "--connection", f"gh-{tenant}", "--token-file", "-")
        cli.json(*account, input="t0ken")
        cli.json("console", "allow", "owner", "--value", f"ada@{tenant}", "--tenant", tenant)
        cli.json("connect", "link", "--tenant", tenant, "--user", "ada", "--connection", f"gh-{tenant}")
        cli.json("workflows", "enable", "daily_digest", "--tenant", tenant, "--config", "-", input=DIGEST)
        cli.json("schedules", "add", "noon", "--tenant", tenant, *NOON)
    return cli


def advance(cli: Cli, revocation: str) -> None:
    """What the revocations worker does, until the receipt."""
    with Installation(load(data_dir=cli.data_dir)) as at:
        assert at.runtime.revoker.advance(revocation)


def sealed(cli: Cli) -> dict[str, int]:
    """How many values of each column of the ledger are sealed."""

    def count(c: Connection) -> dict[str, int]:
        return {str(field): int(c.execute(select(func.count(field.column))).scalar_one()) for field in SEALED}

    with Installation(load(data_dir=cli.data_dir)) as at:
        return at.read(count)


def test_a_deleted_tenant_leaves_no_credential_and_all_of_its_audit(two: Cli) -> None:
    before = sealed(two)
    waits = two.json("tenants", "delete", "acme", *NOW, code=1)
    assert (waits["deleted"], "aswhom up" in waits["why"]) == (False, True)
    assert sealed(two) == before  # what is to end at its provider is needed for that
    (account,) = [row for row in two.json("accounts", "list") if row["tenant_id"] == "acme"]
    kept = [row["id"] for row in two.json("audit", "search", "--tenant", "acme")]

    advance(two, waits["revocation"])
    done = two.json("tenants", "delete", "acme", *NOW)
    assert (done["deleted"], done["revocation"]) == (True, waits["revocation"])
    assert sealed(two) == {name: number // 2 for name, number in before.items()}  # globex's
    assert "tenant:acme is stopped" in two.json("accounts", "show", account["id"])["why"]
    assert [row["tenant_id"] for row in two.json("console", "roles")] == ["globex"]
    assert {row["tenant_id"] for row in two.json("schedules", "list")} == {"globex"}  # Beat starts nothing for it
    assert {row["tenant_id"] for one in two.json("workflows", "list") for row in one["settings"]} == {"globex"}
    after = [row["id"] for row in two.json("audit", "search", "--tenant", "acme")]
    assert set(kept) < set(after)
    assert two.json("audit", "search", "--kind", "tenant")[0]["detail"]["connection secrets"] == 1
    two("audit", "checkpoint")
    assert two.json("audit", "verify")["verified"]
    assert two.json("revocations", "show", waits["revocation"])["verified"]


def test_what_its_revocation_has_not_taken_yet_is_not_shredded(two: Cli) -> None:
    of = two.json("tenants", "delete", "acme", *NOW, code=1)["revocation"]
    advance(two, of)
    with Installation(load(data_dir=two.data_dir)) as at:
        at.write(lambda c: c.execute(update(revocations).values(collected_at=None)).rowcount)
    assert "still to be collected" in two.json("tenants", "delete", "acme", *NOW, code=1)["why"]
    advance(two, of)
    assert two.json("tenants", "delete", "acme", *NOW)["deleted"]


def test_a_deleted_tenant_is_not_opened_or_made_again(two: Cli) -> None:
    advance(two, two.json("tenants", "delete", "acme", *NOW, code=1)["revocation"])
    two.json("tenants", "delete", "acme", *NOW)
    for again in (("delete", "acme", "--yes"), ("open", "acme"), ("add", "acme")):
        assert "was deleted" in two.json("tenants", *again, code=1)["message"]
    for more in (("workflows", "enable", "daily_digest", "--config", "-"), ("schedules", "add", "eve", *NOON)):
        assert "was deleted" in two.json(*more, "--tenant", "acme", code=1, input=DIGEST)["message"]
    assert {row["id"]: bool(row["deleted_at"]) for row in two.json("tenants", "list")} == {
        "acme": True,
        "globex": False,
    }


def test_a_tenant_that_was_opened_again_is_revoked_anew(two: Cli) -> None:
    first = two.json("tenants", "delete", "acme", *NOW, code=1)["revocation"]
    advance(two, first)
    two.json("tenants", "open", "acme")
    account = ("accounts", "add-static", "--tenant", "acme", "--connection", "gh-acme", "--token-file", "-")
    two.json(*account, input="an0ther")
    held = sealed(two)

    waits = two.json("tenants", "delete", "acme", *NOW, code=1)
    assert waits["revocation"] != first
    assert sealed(two) == held
    assert (
        two.json("tenants", "delete", "acme", *NOW, code=1)["revocation"] == waits["revocation"]
    )  # stopped, and the same
    advance(two, waits["revocation"])
    (asked,) = two.json("revocations", "show", waits["revocation"])["receipt"]["provider"]["accounts"]
    assert asked["of"] == "grant"
    assert two.json("tenants", "delete", "acme", *NOW)["revocation"] == waits["revocation"]


def test_a_tenant_that_was_opened_and_not_connected_is_stopped_anew(two: Cli) -> None:
    first = two.json("tenants", "delete", "acme", *NOW, code=1)["revocation"]
    advance(two, first)
    two.json("tenants", "open", "acme")
    again = two.json("tenants", "delete", "acme", *NOW, code=1)["revocation"]
    assert again != first
    advance(two, again)
    assert two.json("tenants", "delete", "acme", *NOW)["deleted"]


def test_an_open_tenant_is_not_shredded(two: Cli) -> None:
    held = sealed(two)
    with Installation(load(data_dir=two.data_dir)) as at, pytest.raises(BadInput, match="was opened meanwhile"):
        at.write(lambda c: shred(c, "acme", at.act(), besides={}))
    assert sealed(two) == held


def test_it_asks_first_and_names_what_there_is_not(two: Cli) -> None:
    asked = two("tenants", "delete", "acme")
    assert asked.exit_code == 2
    assert "1 active account(s)" in asked.output
    assert two.json("revocations", "list") == []
    assert "tenants list" in two.json("tenants", "delete", "nobody", "--yes", code=1)["message"]


@pytest.mark.parametrize(("state", "why"), [("discarded", OutOfDate.REVOKED), ("unknown", None), ("open", None)])
def test_an_answer_that_comes_after_the_deletion_is_stored_nowhere(two: Cli, state: str, why: OutOfDate | None) -> None:
    of = two.json("tenants", "delete", "acme", *NOW, code=1)["revocation"]
    advance(two, of)
    (account,) = [row["id"] for row in two.json("accounts", "list") if row["tenant_id"] == "acme"]
    now = datetime.now(UTC)
    late = {
        "id": "ref-1", "account_id": account, "generation": 9, "consented": 1, "state": state, "opened": 1,
        "out_of_date": why, "started_at": now, "send_before": now, "settled_by": now, "presented": 1,
    }  # fmt: skip
    with Installation(load(data_dir=two.data_dir)) as at:
        at.write(lambda c: c.execute(insert(refresh_intents), late))
    two.json("tenants", "delete", "acme", *NOW)
    before = sealed(two)
    with Installation(load(data_dir=two.data_dir)) as at:
        assert not at.write(lambda c: store_answer(c, "ref-1", b"x"))
        kept = at.read(lambda c: c.execute(select(refresh_intents).where(refresh_intents.c.id == "ref-1")).one())
        assert (kept.state, kept.out_of_date, kept.outcome) == ("discarded", OutOfDate.DELETED, "tenant deleted")
        assert abs(kept.finished_at - now) < timedelta(hours=1)
    assert sealed(two) == before


def test_what_is_stuck_at_a_provider_is_shredded_only_if_that_is_said(two: Cli) -> None:
    of = two.json("tenants", "delete", "acme", *NOW, code=1)["revocation"]
    advance(two, of)
    (account,) = [row["id"] for row in two.json("accounts", "list") if row["tenant_id"] == "acme"]
    stuck = {
        "id": "w-1", "account_id": account, "origin": "grant", "credential": "static", "generation": 9, "consented": 1,
        "state": WithdrawalState.STUCK, "access_sealed": b"x", "due_at": datetime.now(UTC),
        "created_at": datetime.now(UTC), "tries": 9,
        "revocation_id": of, "reason": "it answered 502",
    }  # fmt: skip
    with Installation(load(data_dir=two.data_dir)) as at:
        at.write(lambda c: c.execute(insert(withdrawals), stuck))
    waits = two.json("tenants", "delete", "acme", *NOW, code=1)["why"]
    assert f"1 credential(s) are stuck at their providers: `aswhom revocations retry {of}`, or say --give-up" in waits
    assert two.json("tenants", "delete", "acme", "--give-up", *NOW)["stuck credentials, given up"] == 1
    assert two.json("revocations", "list", "--stuck") == []
    assert two.json("revocations", "retry", of, code=1)["asked_again"] == 0
    with Installation(load(data_dir=two.data_dir)) as at:  # the deletion's bell was lost: housekeeping finds it
        assert at.runtime.revoker.unfinished(idle_seconds=0, pending_seconds=0) == [of]
    advance(two, of)
    with Installation(load(data_dir=two.data_dir)) as at:
        assert at.runtime.revoker.unfinished(idle_seconds=0, pending_seconds=0) == []
    provider = two.json("revocations", "show", of)["receipt"]["provider"]
    assert provider["answer"] == "given_up"
    assert ("given_up", "it answered 502") in {(one["answer"], one["reason"]) for one in provider["accounts"]}
