"""A capability counts once, for whom and for what it was issued, and not after a revocation."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial

import pytest

from identity.capability import issued
from identity.capability.model import Audience, Outcome
from identity.capability.spending import NotSpent, spend
from identity.capability.token_exchange import Exchanged
from identity.capability.verifier import Limit, Reason
from identity.model import Scope, ScopeKind
from identity.secret import Secret
from tests.capability.capability_ledger import (
    ASKED,
    BANK,
    INVOICES,
    NEXT,
    PAID,
    THEIRS,
    CapabilityLedger,
    reasons,
    revoke,
)
from tests.ledger.acts import until_awaited
from tests.ledger.plans import statements_of

SCOPES = (
    Scope(kind=ScopeKind.TENANT, key="acme"),
    Scope(kind=ScopeKind.CONNECTION, key="inv"),
    Scope(kind=ScopeKind.AGENT, key="payer"),
    Scope(kind=ScopeKind.USER, key="acme.ada"),
    Scope(kind=ScopeKind.ACCOUNT, key="acme/inv/acme.ada"),
)

#: What a forger could say otherwise than was recorded, and why that is refused.
FORGED = (
    ({"tenant": "globex"}, "tenant"),
    ({"subject": "acme.eve"}, "subject"),
    ({"actors": ("thief", "payer")}, "actors"),
    ({"job": "job_other"}, "job"),
    ({"step": "step_other"}, "step"),
    ({"action": "invoices.DeleteInvoice"}, "action"),
    ({"resource": "invoices/inv_8"}, "resource"),
    ({"limit": None}, "amount"),
    ({"limit": Limit(amount=Decimal("1500.01"), currency="EUR")}, "amount"),
    ({"limit": Limit(amount=Decimal("1500.00"), currency="USD")}, "currency"),
    ({"request_sha256": "0" * 64}, "request"),
    ({"approved_by": ("acme.eve",)}, "approved_by"),
    ({"id": "cap_never_issued"}, "unknown"),
)


def passed_on(ledger: CapabilityLedger) -> Secret:
    """A token that another service than the agent's may spend."""
    made = ledger.authority.exchange(ledger.token(), INVOICES, target=BANK.uri, asked=ASKED)
    assert isinstance(made, Exchanged)
    return made.token


def test_fifty_concurrent_uses_are_one_spend(ledger: CapabilityLedger) -> None:
    token = ledger.token()
    answers: list[dict[str, object]] = []
    start = threading.Barrier(50)

    def use() -> None:
        start.wait()
        answers.append(ledger.spend(token))

    threads = [threading.Thread(target=use) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(str(answer["spend"]) for answer in answers) == ["again"] * 49 + ["first"]
    assert len(ledger.audited("capability.spent")) == 1


def test_the_same_request_again_is_the_same_spend_and_another_is_refused(ledger: CapabilityLedger) -> None:
    token = ledger.token()
    assert ledger.spend(token)["spend"] == "first"
    assert ledger.spend(token)["spend"] == "again"
    assert ledger.spend(token, request="0" * 64) == {"active": False, "reason": "request"}


def test_who_does_not_say_for_which_request_spends_once(ledger: CapabilityLedger) -> None:
    token = ledger.token()
    assert ledger.spend(token, request=None)["spend"] == "first"
    assert ledger.spend(token, request=None) == {"active": False, "reason": "spent"}


def test_a_spend_that_was_for_no_request_in_particular_is_nobodys_but_the_first(ledger: CapabilityLedger) -> None:
    """A gateway asks without the request's hash, and the service behind it with: only one of them may act."""
    token = ledger.token()
    assert ledger.spend(token, request=None)["spend"] == "first"
    assert ledger.spend(token) == {"active": False, "reason": "spent"}
    other = ledger.token()
    assert ledger.spend(other)["spend"] == "first"
    assert ledger.spend(other, request=None) == {"active": False, "reason": "spent"}
    assert ledger.spend(ledger.token(), request="not said")["reason"] == "request", "what is kept of it is no request"


@pytest.mark.parametrize("spent", [False, True], ids=["not spent yet", "spent before"])
def test_one_that_has_expired_by_the_ledgers_clock_is_not_spent(ledger: CapabilityLedger, *, spent: bool) -> None:
    """The verifier went by another clock, or just before."""
    capability = ledger.issue()
    if spent:
        ledger.spend(ledger.token(capability))
    ledger.expire(capability)
    record = ledger.database.read(partial(issued.find, jti=capability.id))
    assert record is not None
    outcome = ledger.database.write(partial(spend, claimed=record.capability, by=INVOICES, request_sha256=PAID))
    assert isinstance(outcome, NotSpent)
    assert outcome.why is Reason.EXPIRED
    assert len(ledger.audited("capability.spent")) == spent
    assert ledger.database.read(partial(issued.find, jti=capability.id)) == record


def test_what_is_done_is_closed_to_whoever_has_the_token(ledger: CapabilityLedger) -> None:
    capability = ledger.issue()
    token = ledger.token(capability)
    ledger.spend(token)
    ledger.close(capability)
    assert ledger.spend(token) == {"active": False, "reason": "closed"}
    (refused,) = ledger.audited("capability.refused")
    assert (refused.outcome, refused.step_id, refused.principal_id) == ("closed", capability.step, "acme.ada")


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: str(scope.kind))
def test_a_revocation_reaches_a_token_that_was_not_spent(ledger_on_sqlite: CapabilityLedger, scope: Scope) -> None:
    before = ledger_on_sqlite.token()
    ledger_on_sqlite.revoke(scope)
    assert ledger_on_sqlite.spend(before) == {"active": False, "reason": "revoked"}
    assert ledger_on_sqlite.spend(ledger_on_sqlite.token())["active"], "a job accepted since is not touched"


@pytest.mark.parametrize("stop", [False, True], ids=["revoked", "stopped"])
def test_a_token_is_not_spent_once_somebody_who_approved_it_has_lost_their_authority(
    ledger: CapabilityLedger, *, stop: bool
) -> None:
    approver = Scope(kind=ScopeKind.USER, key="acme.edsger")
    approved, unspent = (ledger.issue(approved_by=("acme.grace", approver.key)) for _ in range(2))
    others = ledger.token(ledger.issue(approved_by=("acme.grace",)))
    assert ledger.spend(ledger.token(approved))["spend"] == "first"
    (ledger.stop if stop else ledger.revoke)(approver)
    assert ledger.spend(ledger.token(unspent))["reason"] == "revoked"
    assert ledger.spend(ledger.token(approved))["spend"] == "again", "what may have been done by it is not taken back"
    assert ledger.spend(others)["spend"] == "first"
    later = ledger.spend(ledger.token(ledger.issue(approved_by=(approver.key,))))
    assert later["active"] is not stop, "a job accepted since is not touched by a revocation"


def test_a_revocation_reaches_a_spent_token_too_and_a_stop_every_one(ledger: CapabilityLedger) -> None:
    token = ledger.token()
    ledger.spend(token)
    ledger.revoke(SCOPES[3])
    assert ledger.spend(token)["reason"] == "revoked"
    after = ledger.token()
    ledger.stop(SCOPES[2])
    assert ledger.spend(after)["reason"] == "revoked"


def test_a_spend_and_a_revocation_that_race_agree_on_who_was_first(ledger: CapabilityLedger) -> None:
    """Whatever is spent by another thread was spent before the revocation's number, or not at all."""
    tokens = [ledger.token() for _ in range(12)]
    answers: list[dict[str, object]] = []
    start = threading.Barrier(13)

    def use(place: int) -> None:
        start.wait()
        answers.append(ledger.spend(tokens[place]))

    threads = [threading.Thread(target=use, args=(place,)) for place in range(12)]
    for thread in threads:
        thread.start()
    start.wait()
    revoked = ledger.revoke(SCOPES[0])
    for thread in threads:
        thread.join()
    assert reasons(answers) <= {"first", "revoked"}
    spent = [row.number for row in ledger.audited("capability.spent")]
    assert len(spent) == sum(bool(answer["active"]) for answer in answers)
    assert all(number < revoked for number in spent)
    assert all(ledger.spend(token)["reason"] == "revoked" for token in tokens)


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("by", [INVOICES, BANK], ids=["of the agent", "passed on"])
def test_a_spend_beside_a_revocation_waits_for_it_and_reads_what_that_committed(
    ledger: CapabilityLedger, by: Audience
) -> None:
    """SQLite has one writer anyway."""
    token, request = (passed_on(ledger), NEXT) if by is BANK else (ledger.token(), PAID)
    answers: list[dict[str, object]] = []
    spending = threading.Thread(target=lambda: answers.append(ledger.spend(token, by=by, request=request)))
    until_awaited(ledger.database, partial(revoke, scope=SCOPES[3]), by=spending)
    assert answers == [{"active": False, "reason": "revoked"}]
    assert ledger.audited("capability.spent") == []


@pytest.mark.parametrize("limit", [Limit(amount=Decimal("1500.00"), currency="EUR"), None], ids=["an amount", "none"])
def test_a_first_spend_is_three_statements(ledger: CapabilityLedger, limit: Limit | None) -> None:
    """The locks or the number, the spend by the whole of the rule, and its row of the audit."""
    token = ledger.token(ledger.issue(limit=limit, approved_by=("acme.grace", "acme.zoë")))
    said = [one for one, _ in statements_of(lambda: ledger.spend(token)) if "capability_keys" not in one]
    assert len(said) == 3, said
    assert len(ledger.audited("capability.spent")) == 1


def test_a_stolen_token_is_of_no_use_to_another_service(ledger: CapabilityLedger) -> None:
    token = ledger.token()
    assert ledger.spend(token, by=BANK) == {"active": False}
    assert ledger.spend(token, by=THEIRS) == {"active": False}
    assert ledger.spend(token)["spend"] == "first", "what a thief tried has spent nothing"


def test_another_service_at_the_same_address_is_another_service(shared_ledger: CapabilityLedger) -> None:
    token = shared_ledger.token()
    assert shared_ledger.spend(token, by=replace(INVOICES, id="successor")) == {"active": False}
    assert shared_ledger.spend(token)["spend"] == "first"


def test_a_spend_is_judged_by_the_connection_on_record(ledger_on_sqlite: CapabilityLedger) -> None:
    """And not by the one that its audience has by now."""
    moved = replace(INVOICES, connection="elsewhere")
    assert ledger_on_sqlite.spend(ledger_on_sqlite.token(), by=moved)["spend"] == "first"
    token = ledger_on_sqlite.token()
    ledger_on_sqlite.revoke(SCOPES[1])
    assert ledger_on_sqlite.spend(token, by=moved)["reason"] == "revoked"


@pytest.mark.parametrize(("other", "reason"), FORGED)
def test_whoever_has_the_signing_key_is_held_to_what_was_recorded(
    shared_ledger: CapabilityLedger, other: dict[str, object], reason: str
) -> None:
    forged = replace(shared_ledger.issue(), **other)  # type: ignore[arg-type]
    assert shared_ledger.spend(shared_ledger.token(forged)) == {"active": False, "reason": reason}


def test_no_database_lets_a_forger_spend(ledger: CapabilityLedger) -> None:
    """The UPDATE itself looks at all that was recorded: nobody's other word for it spends, and none is kept of it."""
    real = ledger.issue(approved_by=("acme.grace",))
    for other, reason in FORGED:
        assert ledger.spend(ledger.token(replace(real, **other)))["reason"] == reason
    record = ledger.database.read(partial(issued.find, jti=real.id))
    assert record is not None
    assert record.spent_sha256 is None
    assert ledger.spend(ledger.token(real))["spend"] == "first"


def test_another_life_than_was_recorded_is_refused(shared_ledger: CapabilityLedger) -> None:
    real = shared_ledger.issue()
    for name, by, reason in (("expires_at", 30, "expires_at"), ("issued_at", -30, "issued_at")):
        other = replace(real, **{name: getattr(real, name) + timedelta(seconds=by)})
        assert shared_ledger.spend(shared_ledger.token(other)) == {"active": False, "reason": reason}


def test_a_step_in_doubt_gets_the_same_capability_and_one_without_effect_another(ledger: CapabilityLedger) -> None:
    wanted = ledger.wanted()
    first = ledger.issue(wanted)
    assert ledger.issue(replace(wanted, id=ledger.ids("cap"))) == first
    ledger.spend(ledger.token(first))
    ledger.close(first, Outcome.NO_EFFECT)
    second = ledger.issue(replace(wanted, id=ledger.ids("cap")))
    assert second.id != first.id
    assert ledger.spend(ledger.token(first))["reason"] == "closed", "its request may still arrive, and does nothing"
    assert ledger.spend(ledger.token(second))["spend"] == "first"


def test_one_that_is_about_to_expire_is_superseded(ledger: CapabilityLedger) -> None:
    wanted = ledger.wanted(lifetime=timedelta(seconds=11))
    first = ledger.issue(wanted)
    ledger.ahead = timedelta(seconds=3)
    second = ledger.issue(replace(wanted, id=ledger.ids("cap")))
    assert second.id != first.id
    assert ledger.spend(ledger.token(first))["reason"] == "closed"


def test_one_that_others_have_approved_since_is_superseded_too(ledger_on_sqlite: CapabilityLedger) -> None:
    """Sent again, it would name those who took their yes away with them."""
    ledger = ledger_on_sqlite
    wanted = ledger.wanted(approved_by=("acme.grace",))
    first = ledger.issue(wanted)
    second = ledger.issue(replace(wanted, id=ledger.ids("cap"), approved_by=("acme.edsger",)))
    assert second.approved_by == ("acme.edsger",)
    assert ledger.spend(ledger.token(first))["reason"] == "closed"


def test_no_capability_lives_longer_than_three_minutes(shared_ledger: CapabilityLedger) -> None:
    capability = shared_ledger.issue(lifetime=timedelta(hours=1))
    assert capability.expires_at - capability.issued_at == timedelta(seconds=180)
    assert shared_ledger.spend(shared_ledger.token(capability))["active"]


def test_what_is_told_of_a_live_token_is_what_it_says(shared_ledger: CapabilityLedger) -> None:
    capability = shared_ledger.issue(approved_by=("acme.grace",))
    said = shared_ledger.spend(shared_ledger.token(capability))
    assert (said["sub"], said["act"], said["aud"]) == ("acme.ada", {"sub": "payer"}, INVOICES.uri)
    assert (said["request_sha256"], said["approved_by"], said["jti"]) == (PAID, ["acme.grace"], capability.id)
