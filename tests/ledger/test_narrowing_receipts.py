"""The receipt of a narrowing: the calls that were out and needed what was taken, and how each ended; signed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar

import pytest
from sqlalchemy import Connection, Row, select, update

from identity.accounts.scopes import newest_revocation
from identity.accounts.states import find_account, get_account
from identity.audit import Act
from identity.audit.tables import audit
from identity.errors import BadInput
from identity.keys.trusted_keys import TrustedKeys
from identity.model import AccountKey, Credential, PrincipalKind
from identity.tables import grants
from pipeline.action import Facts
from pipeline.authoring.registry import Registry
from pipeline.jobs.intents import Ended, Intent, Opened
from pipeline.ledger.paging import EVERY
from pipeline.revocation.declaration import Stage
from pipeline.revocation.narrowing import narrow_account, preview_narrowing
from pipeline.revocation.tables import revocations
from pipeline.revoker.due_withdrawals import is_pending, uncollected
from pipeline.revoker.proof import disproof, holds
from pipeline.revoker.revoker import Revoker
from pipeline.revoker.unasked import why_not_asked
from pipeline.signal import Asks, Installation
from pipeline.states import AttemptState, JobState, StepState, Wait
from pipeline.views.tenant_views import revocations_page
from pipeline.workflow import SERVICE, USER, workflow
from tests.ledger.acts import SIGNER, audit_kinds, close, done, open_, settle
from tests.ledger.house import AS_ADA, House, Say, intent_of, say_it
from tests.ledger.house import Opened as OpenedEvent
from tests.ledger.plans import plans
from tests.ledger.revokers import quiet_revoker
from tests.ledger.signals import say, signal

ADA = AccountKey(tenant="acme", connection="gh", principal="acme.ada")
KEYS = TrustedKeys(SIGNER.public_key())
ISSUES, COMMENTS = frozenset({"issues:write"}), frozenset({"comments"})


class Shout(Say):
    """Says it louder."""

    facts: ClassVar[Facts] = replace(Say.facts, scopes=ISSUES)


class Whisper(Say):
    """Says it to a few."""

    facts: ClassVar[Facts] = replace(Say.facts, scopes=COMMENTS)


@workflow(
    agent="tester",
    on=say_it.on,
    event=OpenedEvent,
    user=lambda event: None,
    uses={Shout: USER | SERVICE, Whisper: USER},
    name="say_it",
)
def shout_it(run: Any, event: OpenedEvent) -> None:
    """It is not run here."""


WORKFLOWS = Registry([shout_it])


def grant(house: House, *principals: str) -> None:
    theirs = update(grants).where(grants.c.account_id.in_([f"acc-acme.{one}" for one in principals]))
    house.database.write(lambda c: c.execute(theirs.values(scopes=["issues:write", "comments"])).rowcount)


@pytest.fixture
def granted(house: House) -> House:
    grant(house, "ada", "service")
    return house


def asked(house: House, scopes: frozenset[str], action: str, principal: str = "acme.ada") -> Intent:
    base = intent_of(house, house.claim(house.job()), action=action)
    lease = replace(base.lease, scopes=scopes, principal=principal)
    decision = AS_ADA if principal == "acme.ada" else replace(AS_ADA, kind=PrincipalKind.SERVICE)
    return replace(base, lease=lease, principal=principal, decision=decision)


def out(house: House, scopes: frozenset[str], action: str, principal: str = "acme.ada") -> Intent:
    """A call that is in flight."""
    intent = asked(house, scopes, action, principal)
    opened = open_(house, intent)
    assert isinstance(opened, Opened), opened
    return intent


def narrowing(house: House, *keep: str) -> str:
    made = house.ids("rev")

    def write(c: Connection) -> None:
        act = Act(audit_id=house.ids("aud"), by="cli:ops", now=datetime.now(UTC))
        narrow_account(c, get_account(c, "acc-acme.ada"), act, id=made, keep=keep, source="cli", reason="a leak")

    house.database.write(write)
    return made


def revoker(house: House) -> Revoker:
    def never(_: str) -> bool:
        raise AssertionError("no provider is asked")

    return quiet_revoker(house.database, SIGNER, WORKFLOWS, withdraw=never, inquire=never)


def row_of(house: House, made: str) -> Row[Any]:
    return house.database.read(lambda c: c.execute(select(revocations).where(revocations.c.id == made)).one())


def told(receipt: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [(call["attempt"], call["ended"], call["outcome"]) for call in receipt["in_flight"]]


def test_its_receipt_names_each_call_that_was_out_and_needed_what_was_taken_and_no_other(granted: House) -> None:
    before = out(granted, ISSUES, Shout.action_name())
    done(granted, before)
    loud, lost = (out(granted, ISSUES, Shout.action_name()) for _ in range(2))
    unknown_here = out(granted, frozenset(), "github.Gone")
    out(granted, COMMENTS, Whisper.action_name())
    out(granted, ISSUES, Shout.action_name(), "acme.service")
    made = narrowing(granted, "comments")
    done(granted, loud)
    assert isinstance(open_(granted, asked(granted, ISSUES, Shout.action_name())), Ended)
    out(granted, COMMENTS, Whisper.action_name())
    assert not revoker(granted).advance(made)
    assert row_of(granted, made).state == Stage.DRAINING
    close(granted, unknown_here, AttemptState.NO_EFFECT, StepState.FAILED)
    assert not revoker(granted).advance(made)
    settle(granted, lost)
    assert revoker(granted).advance(made)
    row = row_of(granted, made)
    receipt = row.receipt
    assert told(receipt) == [
        (loud.attempt, "ended", "effect"),
        (lost.attempt, "presumed ended", "unknown"),
        (unknown_here.attempt, "ended", "no_effect"),
    ]
    assert receipt["scope"] == {"kind": "narrowing", "key": str(ADA)}
    assert receipt["narrowing"] == {
        "had": ["issues:write", "comments"], "keeps": ["comments"], "took": ["issues:write"]
    }  # fmt: skip
    said = [receipt[name] for name in ("source", "requested_by", "reason", "signal", "number")]
    assert said == ["cli", "cli:ops", "a leak", None, row.number]
    assert receipt["effective_at"] <= receipt["quiesced_at"]
    assert (receipt["cancelled_count"], receipt["provider"]["answer"]) == (0, "not_asked")
    assert row.open_ends == 1, "what became of the lost call may yet be known"
    assert {"account.narrowed", "revocation.quiesced"} <= {*audit_kinds(granted)}


def test_it_holds_by_its_signature_alone_and_an_altered_one_does_not(granted: House) -> None:
    made = narrowing(granted, "comments")
    assert revoker(granted).advance(made)
    row = row_of(granted, made)
    assert holds(KEYS, row.receipt, row.signature)
    softened = {**row.receipt, "narrowing": {**row.receipt["narrowing"], "keeps": ["comments", "issues:write"]}}
    assert not holds(KEYS, softened, row.signature)
    stored = dict(row._mapping)
    assert granted.database.read(partial(disproof, keys=KEYS, row=stored)) is None
    why = granted.database.read(partial(disproof, keys=KEYS, row={**stored, "narrowing": softened["narrowing"]}))
    assert why is not None and "narrowing" in why  # noqa: PT018 - for the type checker


def test_nothing_is_revoked_by_it(granted: House) -> None:
    """It has a number as a revocation has, which no rule asks for, and no credential is taken for it."""
    queued = granted.job()
    made = narrowing(granted, "comments")
    before = intent_of(granted, granted.claim(queued), action=Whisper.action_name())
    assert isinstance(open_(granted, replace(before, lease=replace(before.lease, scopes=COMMENTS))), Opened)
    assert revoker(granted).advance(made)
    read = granted.database.read
    assert read(lambda c: newest_revocation(c, ADA.scopes)) == 0
    assert (read(partial(uncollected, limit=9)), read(partial(is_pending, revocation=made))) == ([], False)
    (listed,) = read(lambda c: revocations_page(c, "acme", EVERY).rows)
    assert (listed["id"], listed["kind"], listed["cancelled_jobs"]) == (made, "narrowing", 0)


def test_what_lacks_it_is_refused_from_its_number_on_and_waits(granted: House) -> None:
    made = narrowing(granted, "comments")
    refused = asked(granted, ISSUES, Shout.action_name())
    assert isinstance(open_(granted, refused), Ended)
    job = granted.row(refused.job.id)
    assert (job.state, job.wait, job.lacks) == (JobState.WAITING, Wait.CONSENT, ["issues:write"])
    assert revoker(granted).advance(made)
    assert told(row_of(granted, made).receipt) == []


def test_to_narrow_to_the_same_again_takes_nothing_and_has_no_receipt(granted: House) -> None:
    made = narrowing(granted, "comments")
    with pytest.raises(BadInput, match="nothing to narrow"):
        narrowing(granted, "comments")
    assert [row["id"] for row in granted.database.read(lambda c: revocations_page(c, None, EVERY).rows)] == [made]


def test_a_second_narrowing_names_what_needed_what_it_took_itself(granted: House) -> None:
    loud, quiet = out(granted, ISSUES, Shout.action_name()), out(granted, COMMENTS, Whisper.action_name())
    first, second = narrowing(granted, "comments"), narrowing(granted)
    done(granted, loud)
    done(granted, quiet)
    assert [revoker(granted).advance(made) for made in (first, second)] == [True, True]
    assert [call[0] for made in (first, second) for call in told(row_of(granted, made).receipt)] == [
        loud.attempt,
        quiet.attempt,
    ]


def test_a_crash_after_its_calls_were_found_changes_none_of_them(granted: House) -> None:
    loud = out(granted, ISSUES, Shout.action_name())
    made = narrowing(granted, "comments")
    assert not revoker(granted).advance(made)
    done(granted, loud)
    without_its_action = quiet_revoker(granted.database, SIGNER)
    assert without_its_action.advance(made)
    assert told(row_of(granted, made).receipt) == [(loud.attempt, "ended", "effect")]


def test_before_it_is_done_it_is_told_what_is_out_and_which_jobs_may_come_to_wait(granted: House) -> None:
    out(granted, ISSUES, Shout.action_name())
    settle(granted, out(granted, ISSUES, Shout.action_name()))
    out(granted, COMMENTS, Whisper.action_name())

    def look(c: Connection, *keep: str) -> Any:
        return preview_narrowing(c, get_account(c, "acc-acme.ada"), ("issues:write", "comments"), keep, WORKFLOWS)

    stake = granted.database.read(lambda c: look(c, "comments"))
    assert (stake.calls_in_flight, stake.unknown_calls, stake.jobs) == (1, 1, {"say_it": 3})
    all_kept = granted.database.read(lambda c: look(c, "comments", "issues:write"))
    assert (all_kept.calls_in_flight, all_kept.jobs) == (0, {})
    found = [plan for plan in plans(granted.database, look, large=True) if "attempts" in plan]
    assert ["ix_attempts_open" in found[0], "ix_attempts_unknown" in found[1]] == [True, True], found


def test_permissions_that_github_took_are_a_narrowing_by_that_signal_and_those_it_gave_are_none(
    granted: House,
) -> None:
    robot = AccountKey(tenant="acme", connection="gh", principal="acme.service")
    granted.connect("acme", "acme.service", credential=Credential.INSTALLATION)
    grant(granted, "service")
    loud = out(granted, ISSUES, Shout.action_name(), "acme.service")
    now = datetime.now(UTC)

    def says(*scopes: str, later: int) -> Any:
        at = now + timedelta(seconds=later)
        return say(granted, signal(Asks.RESCOPE, Installation(id="1001"), at=at, scopes=frozenset(scopes)))

    assert says("issues:write", "comments", "contents:read", later=1).revocations == ()
    taken = says("issues:read", "comments", later=2)
    assert (taken.reason, len(taken.revocations)) == ("1 account(s) narrowed", 1)
    (made,) = taken.revocations
    done(granted, loud)
    assert revoker(granted).advance(made)
    receipt = row_of(granted, made).receipt
    assert (receipt["signal"], receipt["source"], receipt["requested_by"]) == ("del_test", "test", "provider:test")
    assert (receipt["narrowing"]["took"], told(receipt)) == (
        ["contents:read", "issues:write"],
        [(loud.attempt, "ended", "effect")],
    )
    assert why_not_asked(receipt) == "it took the scopes away itself"
    of_signal = select(audit.c.number).where(audit.c.kind == "account.rescope", audit.c.outcome == "narrowed")
    assert granted.database.read(lambda c: c.execute(of_signal).scalars().all()) == [receipt["number"]]
    assert says("issues:read", "comments", later=3).revocations == ()
    account = granted.database.read(partial(find_account, key=robot))
    assert account is not None and account.state == "active"  # noqa: PT018 - for the type checker
