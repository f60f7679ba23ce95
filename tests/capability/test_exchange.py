"""Exchange only ever narrows, is made once, and only by whom the token was for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection

from identity.capability import issued
from identity.capability.authority import Authority
from identity.capability.model import DEEPEST, Audience
from identity.capability.narrowing import Narrower, TooWide, narrow
from identity.capability.spending import Unspendable
from identity.capability.token_exchange import Exchanged, NotExchanged, pass_on
from identity.capability.verifier import Capability, Limit, Reason
from identity.model import Scope, ScopeKind
from identity.secret import Secret
from tests.capability.capability_ledger import ASKED, BANK, CELLAR, INVOICES, NEXT, THEIRS, VAULT_ROOM, CapabilityLedger
from tests.ledger.acts import until_awaited


def exchange(
    ledger: CapabilityLedger, token: Secret, *, by: Audience = INVOICES, to: Audience = BANK, asked: Narrower = ASKED
) -> Exchanged | NotExchanged:
    return ledger.authority.exchange(token, by, target=to.uri, asked=asked)


def made(outcome: Exchanged | NotExchanged) -> Exchanged:
    assert isinstance(outcome, Exchanged), outcome
    return outcome


def test_what_is_passed_on_is_narrower_and_says_through_whom(ledger: CapabilityLedger) -> None:
    given = ledger.issue()
    passed = made(exchange(ledger, ledger.token(given)))
    assert passed.capability == replace(
        given,
        id=passed.capability.id,
        audience=BANK.uri,
        actors=("invoices", "payer"),
        limit=ASKED.limit,
        request_sha256=NEXT,
        issued_at=passed.capability.issued_at,
    )
    said = ledger.spend(passed.token, by=BANK, request=NEXT)
    assert (said["spend"], said["act"]) == ("first", {"sub": "invoices", "act": {"sub": "payer"}})
    (row,) = ledger.audited("capability.exchanged")
    assert (row.principal_id, row.agent_id, row.detail["parent"]) == ("acme.ada", "payer", given.id)


def test_the_same_exchange_is_the_same_token_and_another_one_is_refused(ledger: CapabilityLedger) -> None:
    token = ledger.token()
    outcomes: list[Exchanged | NotExchanged] = []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        outcomes.append(exchange(ledger, token))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({made(outcome).capability.id for outcome in outcomes}) == 1
    other = replace(ASKED, request_sha256="b" * 64)
    assert exchange(ledger, token, asked=other) == NotExchanged(why="spent")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("by", "to", "asked", "why"),
    [
        (BANK, VAULT_ROOM, ASKED, "audience"),  # stolen: it was sent to the invoices
        (INVOICES, VAULT_ROOM, ASKED, "target"),  # not registered for it
        (INVOICES, THEIRS, ASKED, "target"),
        (INVOICES, BANK, replace(ASKED, limit=Limit(amount=Decimal("1500.01"), currency="EUR")), "amount"),
        (INVOICES, BANK, replace(ASKED, limit=Limit(amount=Decimal(1), currency="USD")), "currency"),
        (INVOICES, BANK, replace(ASKED, resource="invoices/inv_8"), "resource"),
        (INVOICES, BANK, replace(ASKED, resource="invoices/inv_7/../inv_8"), "resource"),
        *(
            (INVOICES, BANK, replace(ASKED, resource=f"invoices/inv_7/{part}"), "resource")
            for part in (
                "%2e%2e/inv_8",
                "%2E./inv_8",
                "..%2finv_8",
                "..\\inv_8",
                "..;/inv_8",
                "x?y",
                "x#y",
                "\uff0e\uff0e/inv_8",
                ".\t./inv_8",
                "..\n/inv_8",
                "\x00",
                "..\u200b/inv_8",
                "lines/",
                "/lines",
            )
        ),
        (INVOICES, BANK, replace(ASKED, action="invoices.DeleteInvoice"), "action"),
    ],
)
def test_nothing_wider_and_nobody_else(
    shared_ledger: CapabilityLedger, by: Audience, to: Audience, asked: Narrower, why: str
) -> None:
    token = shared_ledger.token()
    outcome = exchange(shared_ledger, token, by=by, to=to, asked=asked)
    assert isinstance(outcome, NotExchanged)
    assert str(outcome.why) == why
    assert isinstance(exchange(shared_ledger, token), Exchanged), "a refusal costs nothing"


def test_what_a_capability_is_for_may_be_written_as_it_likes_and_a_part_of_it_in_plain_words_alone(
    shared_ledger: CapabilityLedger,
) -> None:
    given = replace(shared_ledger.issue(), resource="bücher/%7B7%7D")
    for part in ("", "/lines/2", "/lines/2.5:a@b~c_d-e,(f)+g=h"):
        asked = replace(ASKED, resource=f"{given.resource}{part}")
        assert isinstance(narrow(given, asked, by=INVOICES, target=BANK, id="cap_2", now=given.issued_at), Capability)


def test_of_a_life_that_ends_this_second_nothing_is_left_to_pass_on(shared_ledger: CapabilityLedger) -> None:
    given = shared_ledger.issue()
    for now, lifetime in ((given.expires_at, None), (given.issued_at, timedelta())):
        asked = replace(ASKED, lifetime=lifetime)
        outcome = narrow(given, asked, by=INVOICES, target=BANK, id="cap_2", now=now)
        assert outcome is TooWide.LIFETIME


def test_what_is_passed_on_lives_no_longer_than_is_asked(shared_ledger: CapabilityLedger) -> None:
    passed = made(exchange(shared_ledger, shared_ledger.token(), asked=replace(ASKED, lifetime=timedelta(seconds=9))))
    assert passed.capability.expires_at - passed.capability.issued_at == timedelta(seconds=9)


def test_a_chain_of_actors_has_an_end(shared_ledger: CapabilityLedger) -> None:
    asked = Narrower(request_sha256=NEXT)
    to_bank = made(exchange(shared_ledger, shared_ledger.token(), asked=asked))
    to_vault = made(exchange(shared_ledger, to_bank.token, by=BANK, to=VAULT_ROOM, asked=asked))
    assert to_vault.capability.actors == ("bank", "invoices", "payer")
    assert len(to_vault.capability.actors) == DEEPEST
    last = exchange(shared_ledger, to_vault.token, by=VAULT_ROOM, to=CELLAR, asked=asked)
    assert last == NotExchanged(why=TooWide.DEPTH)


def test_a_sub_agent_passes_on_less_than_it_was_given_and_every_hand_is_named(ledger: CapabilityLedger) -> None:
    """A sub-agent is an audience that may pass on: here ada asks the agent, that one sub-agent, and that another."""
    line, less = "invoices/inv_7/lines/2", Limit(amount=Decimal(200), currency="EUR")
    given = ledger.issue()
    first = made(exchange(ledger, ledger.token(given), asked=replace(ASKED, resource=line)))
    wider = exchange(ledger, first.token, by=BANK, to=VAULT_ROOM, asked=replace(ASKED, resource=given.resource))
    assert wider == NotExchanged(why=TooWide.RESOURCE)
    asked = Narrower(request_sha256="b" * 64, limit=less, lifetime=timedelta(seconds=30))
    second = made(exchange(ledger, first.token, by=BANK, to=VAULT_ROOM, asked=asked))
    assert (given.limit, first.capability.limit, second.capability.limit) == (ledger.wanted().limit, ASKED.limit, less)
    said = ledger.spend(second.token, by=VAULT_ROOM, request=asked.request_sha256)
    assert (said["active"], said["sub"]) == (True, "acme.ada")
    assert said["act"] == {"sub": "bank", "act": {"sub": "invoices", "act": {"sub": "payer"}}}
    (detail,) = said["authorization_details"]
    assert (detail["identifier"], detail["limit"]) == (line, {"amount": "200", "currency": "EUR"})


def test_what_people_approved_is_passed_on_to_nobody(ledger: CapabilityLedger) -> None:
    """They were shown one request, at one service; the same money at another would be a second effect of one yes."""
    token = ledger.token(ledger.issue(approved_by=("acme.grace",)))
    assert exchange(ledger, token) == NotExchanged(why=TooWide.APPROVED)
    assert ledger.spend(token)["spend"] == "first", "the request that they were shown is done all the same"


def test_what_has_expired_by_the_ledgers_clock_is_passed_on_to_nobody(ledger: CapabilityLedger) -> None:
    """The verifier went by another clock, or just before; and what narrows goes by the host's."""
    given = ledger.issue()
    ledger.expire(given)
    record = ledger.database.read(partial(issued.find, jti=given.id))
    assert record is not None
    now = record.capability.expires_at - timedelta(seconds=30)
    asked = partial(pass_on, by=INVOICES, target=BANK.uri, asked=ASKED, id=ledger.ids("cap"), now=now)
    assert ledger.database.write(partial(asked, claimed=record.capability)) == NotExchanged(why=Reason.EXPIRED)
    assert ledger.audited("capability.exchanged") == []
    assert ledger.database.read(partial(issued.child_of, parent=given.id)) is None


def test_what_is_done_is_passed_on_to_nobody(ledger: CapabilityLedger) -> None:
    given = ledger.issue()
    token = ledger.token(given)
    ledger.close(given)
    assert exchange(ledger, token) == NotExchanged(why=Unspendable.CLOSED)
    assert ledger.audited("capability.exchanged") == []


def test_a_revocation_and_the_end_of_the_step_reach_what_was_passed_on(ledger: CapabilityLedger) -> None:
    given = ledger.issue()
    passed = made(exchange(ledger, ledger.token(given)))
    ledger.close(given)
    assert ledger.spend(passed.token, by=BANK, request=NEXT)["reason"] == "closed"
    again = made(exchange(ledger, ledger.token()))
    ledger.revoke(Scope(kind=ScopeKind.USER, key="acme.ada"))
    assert ledger.spend(again.token, by=BANK, request=NEXT)["reason"] == "revoked"
    assert exchange(ledger, ledger.token(given)) == NotExchanged(why="revoked")  # type: ignore[arg-type]


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_what_is_passed_on_while_the_step_ends_ends_with_it(ledger: CapabilityLedger) -> None:
    """The closing waits for an exchange, and does not see what that made. SQLite has one writer anyway."""
    given = ledger.issue()
    closing = threading.Thread(target=ledger.close, args=(given,))

    class Slowly:
        read = ledger.database.read

        def write(self, fn: Callable[[Connection], Any]) -> Any:
            return until_awaited(ledger.database, fn, by=closing)

    to_bank = made(exchange(ledger, ledger.token(given)))
    slow = Authority(Slowly(), ledger.issuer, ids=ledger.ids, clock=ledger.now)
    to_vault = made(slow.exchange(to_bank.token, BANK, target=VAULT_ROOM.uri, asked=ASKED))
    assert ledger.spend(to_vault.token, by=VAULT_ROOM, request=NEXT) == {"active": False, "reason": "closed"}
