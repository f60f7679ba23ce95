"""What was revoked here ends at the provider too, by name, once, and the receipt says how far that is."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Connection, delete, select, update

from identity.accounts.grants import token_binding
from identity.accounts.states import get_account
from identity.audit import Act
from identity.breaker import Breaker
from identity.connect.leftovers import Leftover, leave
from identity.connections.installations import add_installation, note_places
from identity.connections.registry import add_connection, get_connection
from identity.connections.secrets import CLIENT_SECRET, add_secret, seal_secret
from identity.errors import Unavailable
from identity.hold import release_hold, set_hold
from identity.http.client import Answer, Client
from identity.keys.signing import Signer
from identity.keys.vault import Vault
from identity.model import AccountKey, Credential, PrincipalKind, Scope, ScopeKind, TokenAnswer
from identity.principals import ensure_principal, link_alias
from identity.providers import PROFILES
from identity.providers.pace import Pace
from identity.providers.profile import Profile
from identity.refresh.intents import (
    TOKEN_ANSWER,
    IntentState,
    RefreshIntent,
    open_intent,
    settle,
    store_answer,
)
from identity.refresh.out_of_date import OutOfDate
from identity.refresh.stale_access import drop_access
from identity.secret import Secret
from identity.sql.sequence import lock_exclusive, next_number
from identity.sql.store import CommitUnknown
from identity.tables import accounts, grants, installations, places_seen, provider_connections
from identity.token_endpoint.endpoint import TokenEndpoint, pack
from identity.token_endpoint.gate import Endpoint, Gate
from identity.transmitters import Transmitter, add_transmitter
from identity.withdrawals.budget import WithdrawalBudget
from identity.withdrawals.claiming import claim_alike
from identity.withdrawals.end_request import Case
from identity.withdrawals.reach import awaits_provider
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawal import WithdrawalState, ask_again
from identity.withdrawals.withdrawer import WithdrawalTurn, Withdrawer
from pipeline.duties.retention import Retention, prune
from pipeline.model import SecurityEvent
from pipeline.revocation import declaration
from pipeline.revocation.receipt_content import ProviderAnswer
from pipeline.revocation.security_events import accept as accept_event
from pipeline.revocation.tables import revocations
from pipeline.revoker.due_withdrawals import measure_withdrawals
from pipeline.revoker.inquiry import Inquirer
from pipeline.revoker.provider_side import ProviderAsker, provider_side
from pipeline.signal import Asks, People, Signal
from pipeline.states import AttemptState, StepState
from tests.identity.providers import Ended, PretendProvider, pretend_provider, reply
from tests.ledger.acts import close, open_
from tests.ledger.house import House
from tests.ledger.house import intent_of as intent
from tests.ledger.revokers import quiet_revoker
from tests.ledger.signals import say
from tests.ledgers import MOSTLY_SQLITE

pytestmark = MOSTLY_SQLITE

SIGNER = Signer.from_seed(b"s" * 32)
ADA = AccountKey(tenant="acme", connection="gh", principal="acme.ada")
ACCOUNT = Scope(kind=ScopeKind.ACCOUNT, key=str(ADA))
REVOKED: Any = {"out_of_date": OutOfDate.REVOKED, "outcome": "a revocation came first"}
GONE = Signal(source="github.x", asks=Asks.REVOKE, whom=(People(ids=frozenset({"1001"})),), reason="revoked")


class Side:
    """The house with GitHub, and a revoker that asks it."""

    def __init__(self, house: House, github: PretendProvider, http: Client) -> None:
        self.house, self.github = house, github
        self.now = datetime.now(UTC)
        self.http = http
        self.be(PROFILES["github"])

    def be(self, profile: Profile, *, named: str = "github") -> None:
        """The provider is one with that row, which this process knows by that name."""
        house = self.house

        def clock() -> datetime:
            return self.now

        self.gate = Gate(None, monotonic=lambda: clock().timestamp())
        endpoint = TokenEndpoint(client=self.http, budget=timedelta(seconds=5), gate=self.gate)
        withdrawer = Withdrawer(
            house.database,
            house.vault,
            endpoint,
            {named: profile},
            clock=clock,
            ids=partial(house.ids, "wit"),
        )
        self.asker = ProviderAsker(house.database, withdrawer.ask, clock=clock)
        self.revoker = quiet_revoker(house.database, SIGNER, provider_side=provider_side, withdraw=self.asker.advance)

    def declare(self, scope: Scope = ACCOUNT) -> str:
        made, cause = self.house.ids("rev"), declaration.Cause(source="cli", by="op", reason="left")
        self.house.database.write(lambda c: declaration.declare(c, scope, cause, id=made, tenant="acme", now=self.now))
        return made

    def doubt(self) -> str:
        """A signal that may be a replay, about which the revoker asks first; its revocation."""
        inquirer = Inquirer(self.house.database, self.house.vault, self.http, PROFILES, clock=lambda: self.now)
        self.revoker = quiet_revoker(
            self.house.database,
            SIGNER,
            provider_side=provider_side,
            withdraw=self.asker.advance,
            inquire=inquirer.settle,
        )
        (made,) = say(self.house, GONE, seen=True).revocations
        return made

    def receipt(self, made: str) -> Any:
        row = self.house.database.read(partial(declaration.load, revocation=made))
        assert SIGNER.verifies(row.receipt, row.signature)
        return row.receipt

    def tokens(self) -> list[str]:
        """The access tokens by which GitHub was asked to end an authorization."""
        return [json.loads(one.body)["access_token"] for one in self.github.ended]

    def rows(self) -> list[Any]:
        return list(self.house.database.read(lambda c: c.execute(select(withdrawals)).all()))

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def expire(self) -> None:
        """Ada's access token ends a second ago; what renews it lives."""
        ended = update(grants).values(expires_at=self.now - timedelta(seconds=1))
        self.house.database.write(lambda c: c.execute(ended).rowcount)

    def crowd(self, number: int) -> None:
        """So many more people of Ada's tenant, and the access tokens of all have expired."""
        house = self.house
        for place in range(number):
            id = f"acme.p{place:02}"
            new = partial(ensure_principal, id=id, tenant="acme", kind=PrincipalKind.USER, name=id, now=self.now)
            house.database.write(new)
            house.connect("acme", id)
        expired = update(grants).where(grants.c.account_id != "acc-acme.service")
        house.database.write(lambda c: c.execute(expired.values(expires_at=self.now - timedelta(seconds=1))).rowcount)

    def named(self) -> list[list[str]]:
        """The credentials that GitHub was asked to end by their own names, request by request."""
        return [json.loads(one.body)["credentials"] for one in self.github.ended if "credentials" in one.path]

    def drop(self) -> None:
        """A signal puts Ada's access token out of date."""

        def told(c: Connection) -> bool:
            lock_exclusive(c, ACCOUNT)
            return drop_access(c, get_account(c, "acc-acme.ada"))

        assert self.house.database.write(told)

    def awaits(self) -> bool:
        return self.house.database.read(
            lambda c: awaits_provider(c, get_account(c, "acc-acme.ada"), PROFILES["github"], now=self.now)
        )

    def refresh_on_the_wire(self) -> RefreshIntent:
        """An intent of Ada's present generation whose outcome is not known yet."""
        own = self.house.database.read(
            lambda c: c.execute(select(grants).where(grants.c.account_id == "acc-acme.ada")).one()
        )
        intent = RefreshIntent(
            id=self.house.ids("ref"),
            account="acc-acme.ada",
            generation=own.generation,
            consented=own.consented,
            state=IntentState.OPEN,
            opened=own.consented + 1,
            started_at=self.now,
            send_before=self.now + timedelta(seconds=5),
            settled_by=self.now + timedelta(seconds=30),
            presented=1,
        )
        self.house.database.write(lambda c: open_intent(c, intent, former=None))
        return intent

    def lose_refresh(self, state: str) -> None:
        """Ada's refresh token was presented, and no answer came: found out before the revocation, or after it."""
        intent, to = self.refresh_on_the_wire(), IntentState(state)
        assert self.house.database.write(lambda c: settle(c, intent, to=to, outcome="lost", now=self.now))

    def answer(self, intent: RefreshIntent, document: Any) -> None:
        """The refresh's answer comes, after the revocation: it is kept only to be revoked."""
        sealed, answered = self.sealed(intent, document), replace(intent, state=IntentState.ANSWERED)

        def end(c: Any) -> None:
            assert store_answer(c, intent.id, sealed)
            assert settle(c, answered, to=IntentState.DISCARDED, **REVOKED, now=self.now, keep_answer=True)

        self.house.database.write(end)

    def sealed(self, intent: RefreshIntent, document: Any) -> bytes:
        packed = pack(Answer(status=200, headers={}, body=json.dumps(document).encode(), elapsed=timedelta(seconds=1)))
        binding = token_binding("acme", intent.account, "github", TOKEN_ANSWER, intent.generation)
        return self.house.vault.seal(packed, binding)


@pytest.fixture
def side(house: House, http: Client) -> Iterator[Side]:
    with pretend_provider() as github:

        def move(c: Any) -> None:
            c.execute(update(provider_connections).values(api_url=github.url))
            owner = get_connection(c, "gh")
            secret = seal_secret(
                house.vault, owner, id="s", name=CLIENT_SECRET, secret=Secret("client-secret"), now=datetime.now(UTC)
            )
            add_secret(c, secret)

        house.database.write(move)
        yield Side(house, github, http)


def test_the_revoked_token_ends_at_the_provider_and_the_receipt_says_so(side: Side) -> None:
    made = side.declare()
    assert side.awaits()
    assert side.revoker.advance(made)
    (ended,) = side.github.ended
    assert ended.path == "/applications/client/grant"
    assert json.loads(ended.body) == {"access_token": "token-acme.ada-1"}
    assert ended.headers["x-aswhom-revocation"] == made
    told = side.receipt(made)["provider"]
    assert told["answer"] == ProviderAnswer.DONE
    assert [(one["account"], one["generation"], one["of"]) for one in told["accounts"]] == [
        ("acc-acme.ada", 1, "grant")
    ]
    assert not side.awaits()


def test_what_has_ended_is_shredded_and_nobody_is_asked_twice(side: Side) -> None:
    made = side.declare()
    assert side.revoker.advance(made)
    assert side.revoker.advance(made)
    side.revoker.advance(side.declare())
    assert len(side.github.ended) == 1
    (row,) = side.rows()
    assert (row.access_sealed, row.refresh_sealed, row.answer_sealed) == (None, None, None)
    grant = side.house.database.read(
        lambda c: c.execute(select(grants).where(grants.c.account_id == "acc-acme.ada")).one()
    )
    assert (grant.access_sealed, grant.refresh_sealed) == (None, None)


def test_a_provider_that_is_away_is_asked_again_by_due_at_until_it_has_ended_it(side: Side) -> None:
    side.github.ending = lambda _: reply({}, 502)
    made = side.declare()
    assert side.revoker.advance(made)
    assert side.receipt(made)["provider"]["answer"] == ProviderAnswer.PENDING
    assert side.awaits()
    assert side.asker.due() == []
    side.later(3)
    side.github.ending = lambda _: (204, {}, b"")
    assert side.asker.due() == [made]
    assert side.revoker.advance(made)
    receipt = side.receipt(made)
    assert (receipt["provider"]["answer"], receipt["revision"]) == (ProviderAnswer.DONE, 2)
    assert not side.awaits()


def test_a_provider_that_stays_away_is_visibly_stuck_until_an_operator_acts(side: Side) -> None:
    side.house.connect("acme", "acme.ada", lasts=timedelta(days=1))
    side.github.ending = lambda _: reply({}, 401)
    made = side.declare()
    for _ in range(12):
        assert side.revoker.advance(made)
        side.later(400)
    told = side.receipt(made)["provider"]
    assert told["answer"] == ProviderAnswer.STUCK
    assert "401" in told["accounts"][0]["reason"]
    assert not side.awaits()  # a person need not wait for what nobody asks any more
    assert len(side.github.ended) == 12
    assert (measured(side, "stuck"), measured(side, "pending")) == (1, 0)
    side.github.ending = lambda _: (204, {}, b"")
    assert side.house.database.write(lambda c: ask_again(c, made, now=side.now)) == 1
    assert (measured(side, "stuck"), measured(side, "pending")) == (0, 1)
    assert side.revoker.advance(made)
    assert side.receipt(made)["provider"]["answer"] == ProviderAnswer.DONE
    assert (measured(side, "stuck"), measured(side, "pending")) == (0, 0)


def measured(side: Side, state: str) -> float | None:
    """What housekeeping tells Prometheus of credentials that are still to end."""
    measure_withdrawals(side.house.database)
    return REGISTRY.get_sample_value("aswhom_withdrawals", {"state": state})


def test_each_pause_is_twice_as_long_as_the_one_before_up_to_five_minutes() -> None:
    pauses = [WithdrawalBudget().pause(tries).total_seconds() for tries in range(1, 12)]
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_a_receipt_that_is_told_better_long_after_still_names_the_calls_that_were_in_flight(side: Side) -> None:
    """Its provider was stuck for longer than the steps of its jobs are kept."""
    side.house.connect("acme", "acme.ada", lasts=timedelta(days=1))
    asked = intent(side.house, side.house.claim(side.house.job()))
    open_(side.house, asked)
    side.github.ending = lambda _: reply({}, 401)
    made = side.declare()
    close(side.house, asked, AttemptState.EFFECT, StepState.DONE)
    open_(side.house, intent(side.house, asked.job, step=side.house.ids("step"), position=2))
    for _ in range(12):
        assert side.revoker.advance(made)
        side.later(400)
    before = side.receipt(made)
    assert [call["attempt"] for call in before["in_flight"]] == [asked.attempt]
    later = side.now + timedelta(days=91)
    assert (
        prune(side.house.database, Retention(), Signer.from_seed(b"s" * 32), now=later, within=timedelta(minutes=1))[
            "steps"
        ]
        == 1
    )
    side.github.ending = lambda _: (204, {}, b"")
    assert side.house.database.write(lambda c: ask_again(c, made, now=side.now)) == 1
    assert side.revoker.advance(made)
    after = side.receipt(made)
    assert after["revision"] > before["revision"]
    assert after["in_flight"] == before["in_flight"]


def test_a_later_consent_is_not_reached(side: Side) -> None:
    """GitHub ends all of a person's authorization: after a new consent the old one cannot be ended alone."""
    made = side.declare()
    side.house.connect("acme", "acme.ada")
    side.later(5)
    assert side.revoker.advance(made)
    assert side.github.ended == []
    told = side.receipt(made)["provider"]
    assert told["answer"] == ProviderAnswer.STUCK
    assert "a later consent" in told["accounts"][0]["reason"]
    side.house.database.write(lambda c: ask_again(c, made, now=side.now))
    side.revoker.advance(made)
    assert side.github.ended == []


def test_what_the_person_has_with_another_tenant_is_not_reached_and_not_named(side: Side) -> None:
    theirs = side.house.connect("globex", "globex.ada")
    made = side.declare()
    assert side.revoker.advance(made)
    assert side.github.ended == []
    (told,) = side.receipt(made)["provider"]["accounts"]
    assert told["answer"] == ProviderAnswer.STUCK
    assert "another account, of the same person there" in told["reason"]
    assert theirs not in told["reason"]


def test_a_token_of_another_generation_is_named_where_tokens_end_alone(side: Side) -> None:
    side.be(replace(PROFILES["github"], revocation=PROFILES["slack"].revocation))
    made = side.declare()
    side.house.connect("acme", "acme.ada")
    side.later(5)
    assert side.revoker.advance(made)
    assert side.tokens() == ["token-acme.ada-1"]
    assert side.receipt(made)["provider"]["answer"] == ProviderAnswer.DONE


def test_what_a_discarded_refresh_won_is_ended_too(side: Side) -> None:
    intent = side.refresh_on_the_wire()
    made = side.declare()
    assert side.revoker.advance(made)
    assert side.github.ended == []  # the refresh has not ended: what it wins is not known yet
    assert side.receipt(made)["provider"]["answer"] == ProviderAnswer.PENDING
    side.answer(intent, {"access_token": "won", "refresh_token": "won-too", "expires_in": 60, "token_type": "bearer"})
    side.github.ending = lambda asked: (422 if b"token-acme.ada-1" in asked.body else 204, {}, b"")
    side.github.alive = False
    side.later(2)
    assert side.revoker.advance(made)
    assert sorted(side.tokens()) == ["token-acme.ada-1", "won"]
    told = side.receipt(made)["provider"]
    assert told["answer"] == ProviderAnswer.DONE
    assert {one["of"] for one in told["accounts"]} == {"grant", "refresh"}


def test_a_credential_that_cannot_be_asked_about_holds_up_no_other(side: Side) -> None:
    intent, made, asked = side.refresh_on_the_wire(), side.declare(), list[str]()
    side.answer(intent, {"access_token": "won", "expires_in": 60, "token_type": "bearer"})

    def ask(withdrawal: str, _others: Sequence[str]) -> WithdrawalTurn:
        asked.append(withdrawal)
        if len(asked) == 1:
            raise LookupError("nobody foresaw it")
        return WithdrawalTurn()

    asker = ProviderAsker(side.house.database, ask, clock=lambda: side.now)
    with pytest.raises(ExceptionGroup, match="credentials that could not be taken or asked about") as told:
        asker.advance(made)
    assert [type(one) for one in told.value.exceptions] == [LookupError]
    assert len(set(asked)) == len(asked) == 2


def test_a_credential_of_a_provider_that_a_process_does_not_know_is_left_to_one_that_does(side: Side) -> None:
    made = side.declare()
    side.be(PROFILES["github"], named="other")
    assert side.revoker.advance(made)
    (row,) = side.rows()
    assert (row.state, row.tries, side.asker.due()) == ("pending", 1, [])
    assert "no provider is named 'github'" in row.reason
    side.later(301)
    side.be(PROFILES["github"])
    assert side.asker.due() == [made]
    assert side.revoker.advance(made)
    assert side.receipt(made)["provider"]["answer"] == ProviderAnswer.DONE


def test_a_credential_that_no_host_has_the_vaults_key_for_is_stuck_after_an_hour_and_not_lost(side: Side) -> None:
    side.house.vault, sound = Vault({2: bytes(32)}, os.urandom), side.house.vault
    side.be(PROFILES["github"])
    made = side.declare()
    for _ in range(11):
        assert side.revoker.advance(made)
        assert [(row.state, "needs vault key 1" in row.reason) for row in side.rows()] == [("pending", True)]
        side.later(300)
    assert side.revoker.advance(made)
    assert side.receipt(made)["provider"]["answer"] == ProviderAnswer.STUCK
    side.house.vault = sound
    side.be(PROFILES["github"])
    assert side.house.database.write(lambda c: ask_again(c, made, now=side.now)) == 1
    assert side.revoker.advance(made)
    assert side.tokens() == ["token-acme.ada-1"]


def test_an_answer_that_came_after_the_receipt_is_found(side: Side) -> None:
    intent = side.refresh_on_the_wire()
    side.house.database.write(
        lambda c: settle(c, intent, to=IntentState.UNKNOWN, outcome="nobody answered", now=side.now)
    )
    made = side.declare()
    assert side.revoker.advance(made)
    assert side.receipt(made)["provider"]["answer"] == ProviderAnswer.DONE
    side.answer(intent, {"access_token": "late", "expires_in": 60, "token_type": "bearer"})
    assert side.asker.due() == [made]
    assert side.revoker.advance(made)
    assert side.tokens()[-1] == "late"
    assert side.receipt(made)["revision"] == 2


def test_an_answer_that_came_after_its_refresh_was_discarded_and_the_receipt_written_is_found(side: Side) -> None:
    intent = side.refresh_on_the_wire()
    made = side.declare()
    side.house.database.write(lambda c: settle(c, intent, to=IntentState.DISCARDED, **REVOKED, now=side.now))
    assert side.revoker.advance(made)
    assert side.receipt(made)["provider"]["answer"] == ProviderAnswer.DONE
    late = side.sealed(intent, {"access_token": "late", "expires_in": 60, "token_type": "bearer"})
    side.house.database.write(lambda c: store_answer(c, intent.id, late))
    assert side.asker.due() == [made]
    assert side.revoker.advance(made)
    assert side.tokens()[-1] == "late"
    assert side.receipt(made)["revision"] == 2
    assert side.asker.due() == []


def test_after_the_providers_own_signal_only_what_a_refresh_won_is_ended(side: Side) -> None:
    intent = side.refresh_on_the_wire()
    (made,) = say(side.house, GONE).revocations
    side.answer(intent, {"access_token": "won", "expires_in": 60, "token_type": "bearer"})
    assert side.revoker.advance(made)
    assert side.tokens() == ["won"]
    told = {one["of"]: one for one in side.receipt(made)["provider"]["accounts"]}
    assert told["grant"]["answer"] == ProviderAnswer.NOT_ASKED
    assert "the provider itself said" in told["grant"]["reason"]
    assert told["refresh"]["answer"] == ProviderAnswer.DONE


def test_what_ends_no_token_there_is_asked_about_or_the_receipt_says_why_not(side: Side) -> None:
    """A session's end leaves the tokens of a client alive; a workspace's leave does not end its organization's."""
    stream = Transmitter(id="stream", issuer="i", audience="a", jwks_url="https://i", tenant=None, connection="gh")
    side.house.database.write(partial(add_transmitter, new=stream, now=side.now))

    def hear(source: str) -> tuple[str, str]:
        told = (replace(GONE, source=source),)
        event = SecurityEvent(transmitter="stream", jti=source, events=(), signals=told, note="", token=b"")
        accepting = partial(accept_event, event=event, transmitter=stream, id=side.house.ids("rev"), now=side.now)
        (made,) = side.house.database.write(accepting).revocations
        return answer(made)

    def answer(made: str) -> tuple[str, str]:
        assert side.revoker.advance(made)
        (one,) = side.receipt(made)["provider"]["accounts"]
        side.later(5)
        side.house.connect("acme", "acme.ada")
        return one["answer"], one["reason"]

    assert hear("risc.sessions-revoked")[0] == ProviderAnswer.DONE
    assert side.tokens() == ["token-acme.ada-1"]
    answered, why = hear("oauth.tokens-revoked")
    assert (answered, "it has ended" in why) == (ProviderAnswer.NOT_ASKED, True)
    answered, why = answer(say(side.house, replace(GONE, source="slack.team_access_revoked")).revocations[0])
    assert (answered, "other workspaces" in why) == (ProviderAnswer.NOT_ASKED, True)
    assert len(side.tokens()) == 1


@pytest.mark.parametrize("source", ["slack.app_uninstalled", "slack.tokens_revoked", "linear.OAuthApp"])
@pytest.mark.parametrize(
    ("listed", "seen", "answer"),
    [
        (["T1"], ["T1"], ProviderAnswer.NOT_ASKED),
        (["T1"], ["T1", "T9"], ProviderAnswer.NOT_ASKED),
        (["T1"], ["T1", "T2"], ProviderAnswer.DONE),
        (["T1", "T2"], [], ProviderAnswer.DONE),
        ([], ["T1", "T2"], ProviderAnswer.DONE),
        ([], ["T1"], ProviderAnswer.NOT_ASKED),
    ],
    ids=[
        "one listed",
        "one listed and another tenant's",
        "one listed and one that is nobody's",
        "two listed",
        "two where people connected",
        "one where people connected",
    ],
)
def test_the_end_of_one_workspace_says_nothing_of_a_token_that_may_be_anothers(
    side: Side, source: str, listed: list[str], seen: list[str], answer: ProviderAnswer
) -> None:
    def place(c: Any) -> None:
        c.execute(delete(installations))
        c.execute(delete(places_seen))
        for id in listed:
            add_installation(c, owner="gh", external_id=id, tenant="acme", now=side.now)
        if "T9" in seen:
            add_installation(c, owner="gh", external_id="T9", tenant="globex", now=side.now)
        note_places(c, "gh", ["", *seen])

    side.house.database.write(place)
    (made,) = say(side.house, replace(GONE, source=source)).revocations
    assert side.revoker.advance(made)
    assert side.receipt(made)["provider"]["answer"] == answer
    assert len(side.tokens()) == (answer is ProviderAnswer.DONE)


def test_an_identity_provider_that_numbers_as_the_provider_does_is_not_taken_for_it(side: Side) -> None:
    """A `jti` is its transmitter's own: the provider's stream may have used the same."""
    idp = Transmitter(id="idp", issuer="i", audience="a", jwks_url="https://i.example", tenant="acme", connection=None)
    its = replace(idp, id="google", tenant=None, connection="gh")
    whom = (People(ids=frozenset({"u-1"})),)

    def send(c: Any, transmitter: Transmitter, signals: tuple[Signal, ...]) -> tuple[str, ...]:
        event = SecurityEvent(transmitter=transmitter.id, jti="1", events=(), signals=signals, note="", token=b"")
        return accept_event(c, event, transmitter, id=f"rev-{transmitter.id}", now=side.now).revocations

    def tell(c: Any) -> tuple[str, ...]:
        for transmitter in (idp, its):
            add_transmitter(c, transmitter, now=side.now)
        link = partial(link_alias, c, tenant="acme", principal="acme.ada", login=None, made_by="admin:t", now=side.now)
        link(provider="idp", external_id="u-1")
        send(c, its, ())
        return send(c, idp, (replace(GONE, source="caep.session-revoked", whom=whom),))

    (made,) = side.house.database.write(tell)
    assert side.revoker.advance(made)
    assert side.tokens() == ["token-acme.ada-1"]
    assert side.receipt(made)["provider"]["answer"] == ProviderAnswer.DONE


def test_after_a_replayed_signal_nobody_is_asked(side: Side) -> None:
    (made,) = say(side.house, GONE).revocations
    side.house.database.write(lambda c: c.execute(update(revocations).values(doubt="alive")).rowcount)
    assert side.revoker.advance(made)
    assert side.github.ended == []
    told = side.receipt(made)["provider"]
    assert told["answer"] == ProviderAnswer.NOT_ASKED
    assert "replayed signal" in told["accounts"][0]["reason"]


def test_what_nobody_could_find_out_about_because_its_access_token_has_expired_ends_by_its_own_name(
    side: Side,
) -> None:
    """What renews it lives for months, if the signal was a replay."""
    side.expire()
    side.github.ending = lambda _: (202, {}, b"")
    made = side.doubt()
    assert side.revoker.advance(made)
    (ended,) = side.github.ended
    assert (ended.path, json.loads(ended.body)) == ("/credentials/revoke", {"credentials": ["refresh-acme.ada-1"]})
    receipt = side.receipt(made)
    assert (receipt["doubt"], receipt["provider"]["answer"]) == ("unknown", ProviderAnswer.DONE)


def test_what_nobody_could_find_out_about_because_its_provider_was_away_is_asked_for_until_it_has_ended(
    side: Side,
) -> None:
    side.github.alive, side.github.ending = None, lambda _: None
    made = side.doubt()
    assert not side.revoker.advance(made)
    assert side.github.ended == [], "first it is asked whether the signal was true"
    side.later(180)
    assert side.revoker.advance(made)
    receipt = side.receipt(made)
    assert (receipt["doubt"], receipt["provider"]["answer"]) == ("unknown", ProviderAnswer.PENDING)
    side.github.ending = lambda _: (204, {}, b"")
    side.later(600)
    assert side.revoker.advance(made)
    assert side.receipt(made)["provider"]["answer"] == ProviderAnswer.DONE
    assert [row.access_sealed for row in side.rows()] == [None]


@pytest.mark.parametrize("state", ["unknown", "discarded"])
def test_a_token_that_our_own_lost_refresh_may_have_ended_does_not_make_a_signal_true(side: Side, state: str) -> None:
    """The authorization may live, and with it the tokens that the lost answer named."""
    side.lose_refresh(state)
    side.github.alive, side.github.ending = False, lambda _: (404, {}, b"{}")
    made = side.doubt()
    assert side.revoker.advance(made)
    receipt = side.receipt(made)
    assert (receipt["doubt"], receipt["provider"]["answer"]) == ("unknown", ProviderAnswer.STUCK)


def test_a_token_that_lives_though_it_was_presented_in_vain_shows_a_replayed_signal(side: Side) -> None:
    side.lose_refresh("unknown")
    made = side.doubt()
    assert side.revoker.advance(made)
    assert (side.receipt(made)["doubt"], side.github.ended) == ("alive", [])


def test_nobody_is_asked_about_a_token_that_a_refresh_under_way_may_be_ending(side: Side) -> None:
    intent = side.refresh_on_the_wire()
    side.github.alive = False
    made = side.doubt()
    assert not side.revoker.advance(made)
    assert side.github.checked == []
    side.answer(intent, {"access_token": "won", "expires_in": 60, "token_type": "bearer"})
    side.github.ending = lambda asked: (404 if b"token-acme.ada-1" in asked.body else 204, {}, b"{}")
    assert side.revoker.advance(made)
    receipt = side.receipt(made)
    assert (receipt["doubt"], receipt["provider"]["answer"]) == ("unknown", ProviderAnswer.DONE)
    assert sorted(side.tokens()) == ["token-acme.ada-1", "won"]


def test_what_nobody_could_find_out_about_is_stuck_where_its_end_would_reach_a_later_consent(side: Side) -> None:
    made = side.doubt()
    side.house.connect("acme", "acme.ada")  # the token that lives now says nothing of the one before
    side.later(5)
    assert side.revoker.advance(made)
    receipt = side.receipt(made)
    assert (receipt["doubt"], receipt["provider"]["answer"]) == ("unknown", ProviderAnswer.STUCK)
    assert side.github.ended == []
    assert [row.access_sealed is None for row in side.rows()] == [False], "it is kept for whoever acts"


def test_a_replayed_signal_decides_nothing_of_what_an_earlier_revocation_has_not_taken_yet(side: Side) -> None:
    intent = side.refresh_on_the_wire()
    earlier = side.declare(Scope(kind=ScopeKind.TENANT, key="acme"))
    side.answer(intent, {"access_token": "won", "expires_in": 60, "token_type": "bearer"})
    replayed = side.declare()
    alive = update(revocations).where(revocations.c.id == replayed).values(doubt="alive")
    side.house.database.write(lambda c: c.execute(alive).rowcount)
    assert side.revoker.advance(replayed)
    assert side.receipt(replayed)["provider"] == {"answer": ProviderAnswer.NOT_ASKED, "accounts": []}
    assert side.revoker.advance(earlier)
    assert sorted(side.tokens()) == ["token-acme.ada-1", "won"]
    assert side.receipt(earlier)["provider"]["answer"] == ProviderAnswer.DONE


def test_behind_an_expired_token_what_renews_it_is_ended_by_its_own_name(side: Side) -> None:
    side.expire()
    side.github.ending = lambda _: (202, {}, b"")
    made = side.declare()
    assert side.revoker.advance(made)
    (ended,) = side.github.ended
    assert (ended.path, json.loads(ended.body)) == ("/credentials/revoke", {"credentials": ["refresh-acme.ada-1"]})
    assert "authorization" not in ended.headers  # GitHub refuses it from whoever says who they are
    (one,) = side.receipt(made)["provider"]["accounts"]
    assert (one["answer"], "by its own name" in one["reason"]) == (ProviderAnswer.DONE, True)
    assert [row.refresh_sealed for row in side.rows()] == [None]


def test_what_renews_the_expired_tokens_of_a_whole_tenant_is_ended_by_one_request(side: Side) -> None:
    """GitHub takes sixty such requests an hour, of a thousand names each: one at a time, a tenant would take a day."""
    side.crowd(60)
    side.github.ending = lambda _: (202, {}, b"")
    made = side.declare(Scope(kind=ScopeKind.TENANT, key="acme"))
    assert side.revoker.advance(made)
    assert [len(one) for one in side.named()] == [61]
    (together,) = side.named()
    assert len(set(together)) == len(together) == 61
    told = side.receipt(made)["provider"]
    assert told["answer"] == ProviderAnswer.DONE
    assert [one.headers["x-aswhom-revocation"] for one in side.github.ended if "credentials" in one.path] == [made]
    assert {row.refresh_sealed for row in side.rows()} == {None}


@pytest.mark.parametrize(
    "fault",
    [Unavailable("the lock of account acme/gh/acme.p07 is busy"), CommitUnknown("the connection was lost in COMMIT")],
    ids=["busy", "uncertain"],
)
def test_what_was_claimed_for_a_list_is_named_though_a_later_claim_fails(
    side: Side, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    claims = count()

    def busy(*of: Any, **more: Any) -> list[Case]:
        if next(claims):
            raise fault
        return claim_alike(*of, **more)

    monkeypatch.setattr("identity.withdrawals.withdrawer.claim_alike", busy)
    side.crowd(40)
    side.github.ending = lambda _: (202, {}, b"")
    side.revoker.advance(side.declare(Scope(kind=ScopeKind.TENANT, key="acme")))
    assert len(side.named()[0]) == 26


def test_what_others_to_name_are_looked_for_leaves_the_one_probe_to_whoever_asks(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_of: Any, **_more: Any) -> list[Case]:
        raise RuntimeError("a bug")

    monkeypatch.setattr("identity.withdrawals.withdrawer.claim_alike", breaks)
    side.crowd(1)
    renewal = PROFILES["github"].renewal
    assert renewal is not None
    owner = side.house.database.read(lambda c: get_connection(c, "gh"))
    to = Endpoint.asked_by_nobody(f"{owner.api_url}/credentials/revoke")
    made = side.declare(Scope(kind=ScopeKind.TENANT, key="acme"))
    for _ in range(Breaker().threshold):
        side.gate.failed(to, took=timedelta())
    side.later(11)
    with pytest.raises(ExceptionGroup, match="could not be taken or asked about"):
        side.revoker.advance(made)
    assert side.gate.enter(to, renewal.pace) is None


def test_a_token_for_which_a_whole_list_is_refused_is_soon_alone(side: Side) -> None:
    row = PROFILES["github"]
    assert row.renewal is not None
    side.be(replace(row, renewal=replace(row.renewal, most=32, pace=row.token_pace)))
    side.crowd(20)
    bad = b"refresh-acme.p07-1"
    side.github.ending = lambda one: (422 if bad in one.body else 202, {}, b"{}")
    made = side.declare(Scope(kind=ScopeKind.TENANT, key="acme"))
    for _ in range(5):
        side.revoker.advance(made)
        side.later(60)
        if [row.access_sealed is None for row in side.rows() if row.state == WithdrawalState.PENDING] == [False]:
            break
    assert len(side.named()) <= 12
    pending = [row for row in side.rows() if row.state == WithdrawalState.PENDING]
    assert [row.account_id for row in pending] == ["acc-acme.p07"]
    assert side.named()[-1] != side.named()[0]


def test_what_is_asked_by_nobody_has_one_pace_whatever_connection_it_is_of(side: Side) -> None:
    """GitHub counts the address that requests come from."""
    row, house = PROFILES["github"], side.house
    assert row.renewal is not None
    once = replace(row.renewal, pace=Pace(requests=60, per=timedelta(hours=1), burst=1))
    side.be(replace(row, renewal=once))
    owner = house.database.read(lambda c: get_connection(c, "gh"))
    second = replace(owner, id="gh-2", tenant="globex")
    house.database.write(lambda c: add_connection(c, second, now=side.now))
    house.connect("globex", "globex.ada", through="gh-2")
    side.crowd(0)
    side.github.ending = lambda _: (202, {}, b"")
    ours, theirs = (side.declare(Scope(kind=ScopeKind.TENANT, key=tenant)) for tenant in ("acme", "globex"))
    side.revoker.advance(ours)
    side.revoker.advance(theirs)
    assert side.named() == [["refresh-acme.ada-1"]]
    side.later(120)
    side.revoker.advance(theirs)
    assert side.named()[1:] == [["refresh-globex.ada-1"]]


@pytest.mark.parametrize("headers", [{"x-ratelimit-remaining": "0"}, {"retry-after": "600"}])
@pytest.mark.parametrize("expired", [True, False])
def test_a_403_that_limits_the_rate_is_a_pause_and_spends_no_try(
    side: Side, headers: dict[str, str], expired: bool
) -> None:
    """As GitHub says it, whose limit lasts an hour: twelve tries would be over before."""
    if expired:
        side.expire()
    limited = {**headers, "x-ratelimit-reset": str(int(side.now.timestamp()) + 600)}
    side.github.ending = lambda _: (403, limited, b"{}")
    made = side.declare()
    side.revoker.advance(made)
    side.later(300)
    side.revoker.advance(made)
    (row,) = side.rows()
    assert (row.state, row.tries, len(side.github.ended)) == (WithdrawalState.PENDING, 0, 1)
    side.later(WithdrawalBudget().limited.total_seconds())
    side.revoker.advance(made)
    (row,) = side.rows()
    assert (row.tries, len(side.github.ended)) == (1, 2), "a limit of a rate does not last for a day"


def test_a_hold_takes_nothing_from_the_patience_with_a_limit_of_a_rate(side: Side) -> None:
    made, act = side.declare(), Act(audit_id="aud_set", by="cli:op", now=side.now, why="an incident")
    side.house.database.write(lambda c: set_hold(c, act))
    side.revoker.advance(made)
    side.later(WithdrawalBudget().limited.total_seconds())
    end = replace(act, audit_id="aud_end", now=side.now)
    side.house.database.write(lambda c: release_hold(c, end))
    side.github.ending = lambda _: (429, {"retry-after": "600"}, b"{}")
    side.later(60)
    side.revoker.advance(made)
    (row,) = side.rows()
    assert (row.state, row.tries, len(side.github.ended)) == (WithdrawalState.PENDING, 0, 1)


def test_behind_a_dropped_access_token_what_renews_it_is_ended_and_nothing_is_concluded_of_it(side: Side) -> None:
    """GitHub knows access tokens alone there: of what renews one it would say that there is no such token."""
    side.drop()
    side.github.ending, side.github.alive = (
        lambda request: (202 if "credentials" in request.path else 404, {}, b""),
        False,
    )
    made = side.declare()
    assert not side.awaits()
    assert side.revoker.advance(made)
    assert [json.loads(one.body) for one in side.github.ended] == [{"credentials": ["refresh-acme.ada-1"]}]
    assert side.github.checked == []
    (one,) = side.receipt(made)["provider"]["accounts"]
    assert one["answer"] == ProviderAnswer.DONE
    assert "out of use" in one["reason"]


def test_what_is_ended_by_its_own_name_reaches_no_later_consent_and_keeps_nobody_waiting(side: Side) -> None:
    side.expire()
    made = side.declare()
    side.later(120)  # no request that was made before it had expired is under way
    assert not side.awaits()
    side.house.connect("acme", "acme.ada")
    side.github.ending = lambda _: (202, {}, b"")
    assert side.revoker.advance(made)
    assert [json.loads(one.body) for one in side.github.ended] == [{"credentials": ["refresh-acme.ada-1"]}]


def test_while_a_request_by_the_expired_token_may_be_under_way_a_consent_waits(side: Side) -> None:
    side.expire()
    side.declare()
    assert side.awaits()


@pytest.mark.parametrize("status", [404, 422])
@pytest.mark.parametrize(
    ("alive", "answer", "said"),
    [
        (False, ProviderAnswer.DONE, None),
        (True, ProviderAnswer.PENDING, "still takes the credential"),
        (None, ProviderAnswer.PENDING, "does not say"),
    ],
)
def test_an_answer_of_two_meanings_is_done_only_if_the_token_is_dead(
    side: Side, status: int, alive: bool | None, answer: ProviderAnswer, said: str | None
) -> None:
    """422 is "Validation failed, or the endpoint has been spammed", as when a whole company leaves."""
    side.github.ending, side.github.alive = lambda _: (status, {}, b"{}"), alive
    made = side.declare()
    assert side.revoker.advance(made)
    (one,) = side.receipt(made)["provider"]["accounts"]
    assert one["answer"] == answer
    (row,) = side.rows()
    assert row.reason is None if said is None else said in row.reason
    ((headers, body),) = side.github.checked
    assert json.loads(body) == {"access_token": "token-acme.ada-1"}
    assert headers["x-aswhom-revocation"] == made


@pytest.mark.parametrize("state", ["unknown", "discarded"])
@pytest.mark.parametrize("expired", [False, True])
def test_after_a_lost_refresh_a_dead_token_says_nothing_of_the_one_that_may_have_replaced_it(
    side: Side, state: str, expired: bool
) -> None:
    """GitHub kills the old access token at a refresh, so it takes neither for the new one's name."""
    side.lose_refresh(state)
    if expired:
        side.expire()
    side.github.ending = lambda asked: (202 if "credentials" in asked.path else 404, {}, b"{}")
    side.github.alive = False
    made = side.declare()
    assert side.revoker.advance(made)
    (one,) = side.receipt(made)["provider"]["accounts"]
    assert one["answer"] == ProviderAnswer.STUCK
    assert "takes the app out of their settings" in one["reason"]


def test_a_token_that_lived_through_a_lost_refresh_is_done_when_it_is_ended(side: Side) -> None:
    """It was not rotated, then."""
    side.lose_refresh("unknown")
    made = side.declare()
    assert side.revoker.advance(made)
    assert side.receipt(made)["provider"]["answer"] == ProviderAnswer.DONE


def test_what_was_not_ended_for_the_many_requests_is_ended_later(side: Side) -> None:
    side.github.ending = lambda _: (422, {}, b"{}")
    made = side.declare()
    assert side.revoker.advance(made)
    side.github.ending = lambda _: (204, {}, b"")
    side.later(3)
    assert side.revoker.advance(made)
    assert side.receipt(made)["provider"]["answer"] == ProviderAnswer.DONE
    assert len(side.github.checked) == 1


def test_of_an_installations_token_an_answer_of_two_meanings_says_nothing_until_it_has_expired(side: Side) -> None:
    """And nobody is troubled with it: it ends by itself."""
    hers = update(accounts).where(accounts.c.principal_id == ADA.principal)
    side.house.database.write(lambda c: c.execute(hers.values(credential=Credential.INSTALLATION)).rowcount)
    soon = side.now + timedelta(minutes=50)
    side.house.database.write(lambda c: c.execute(update(grants).values(expires_at=soon, refresh_sealed=None)).rowcount)
    side.github.ending, side.github.alive = lambda _: (404, {}, b"{}"), False
    made = side.declare()
    for tries in range(1, 13):
        assert side.revoker.advance(made)
        assert side.receipt(made)["provider"]["answer"] == ProviderAnswer.PENDING
        side.later(WithdrawalBudget().pause(tries).total_seconds() + 1)
    assert len(side.github.ended) == 12
    (row,) = side.rows()
    assert row.due_at == soon
    side.now = soon
    assert side.revoker.advance(made)
    (one,) = side.receipt(made)["provider"]["accounts"]
    assert (one["answer"], one["reason"]) == (ProviderAnswer.NOT_ASKED, "it had expired")


@pytest.mark.parametrize("status", [404, 422, 429])
def test_another_answer_than_taken_does_not_say_that_it_has_ended(side: Side, status: int) -> None:
    """A GitHub Enterprise Server takes personal access tokens alone."""
    side.expire()
    side.github.ending = lambda _: (status, {}, b"{}")
    made = side.declare()
    side.revoker.advance(made)
    (one,) = side.receipt(made)["provider"]["accounts"]
    assert one["answer"] == ProviderAnswer.PENDING


def test_where_nothing_else_can_be_asked_an_expired_token_is_stuck_and_the_receipt_says_what_to_do(side: Side) -> None:
    side.be(replace(PROFILES["github"], renewal=None))
    side.expire()
    made = side.declare()
    assert side.revoker.advance(made)
    assert side.github.ended == []
    (one,) = side.receipt(made)["provider"]["accounts"]
    assert (one["answer"], "settings" in one["reason"]) == (ProviderAnswer.STUCK, True)


@pytest.mark.parametrize(
    ("credential", "answer"),
    [(Credential.INSTALLATION, ProviderAnswer.DONE), (Credential.AUTHORIZATION_CODE, ProviderAnswer.PENDING)],
)
def test_a_token_that_is_refused_as_credentials_has_ended_and_a_client_that_is_refused_ended_nothing(
    side: Side, credential: Credential, answer: ProviderAnswer
) -> None:
    """An installation's token asks for itself; whoever's consent it is, the app asks with its own secret."""
    hers = update(accounts).where(accounts.c.principal_id == ADA.principal)
    side.house.database.write(lambda c: c.execute(hers.values(credential=credential)).rowcount)
    side.github.ending = lambda _: (401, {}, b'{"message": "Bad credentials"}')
    made = side.declare()
    assert side.revoker.advance(made)
    (one,) = side.receipt(made)["provider"]["accounts"]
    assert one["answer"] == answer


def test_a_minted_token_that_expired_before_it_was_asked_about_is_not_asked_about(side: Side) -> None:
    def minted(connection: Connection) -> None:
        connection.execute(update(accounts).values(credential=Credential.INSTALLATION))
        connection.execute(update(grants).values(refresh_sealed=None, expires_at=side.now - timedelta(seconds=1)))

    side.house.database.write(minted)
    made = side.declare()
    assert side.revoker.advance(made)
    assert side.github.ended == []
    (one,) = side.receipt(made)["provider"]["accounts"]
    assert (one["answer"], one["reason"]) == (ProviderAnswer.NOT_ASKED, "it had expired")


def test_what_a_refused_connect_had_won_is_asked_about_by_housekeeping_and_is_on_no_receipt(side: Side) -> None:
    answer = TokenAnswer(
        access_token=Secret("won-a"), refresh_token=Secret("won-r"), expires_at=None, scopes=(), token_type="bearer"
    )
    house = side.house
    started = house.database.write(next_number)
    left = Leftover(key=ADA, provider="github", client_id="client", started=started, answer=answer, external_id="1001")
    house.database.write(lambda c: leave(c, left, left.sealed(house.vault), account_id="new", now=side.now))
    side.github.ending = lambda _: (202, {}, b"")
    made = side.declare()
    assert side.asker.due() == []
    side.asker.ask_leftovers()
    side.asker.ask_leftovers()
    (ended,) = side.github.ended
    assert json.loads(ended.body) == {"credentials": ["won-r", "won-a"]}
    side.github.ending = lambda _: (204, {}, b"")
    assert side.revoker.advance(made)
    assert [one["of"] for one in side.receipt(made)["provider"]["accounts"]] == ["grant"]


def test_a_revoked_tenants_accounts_are_all_ended_and_those_of_another_are_not(side: Side) -> None:
    made = side.declare(Scope(kind=ScopeKind.TENANT, key="acme"))
    assert side.revoker.advance(made)
    assert side.tokens() == ["token-acme.ada-1"]
    answers = {one["account"]: one["answer"] for one in side.receipt(made)["provider"]["accounts"]}
    assert answers == {"acc-acme.ada": ProviderAnswer.DONE, "acc-acme.service": ProviderAnswer.NOT_ASKED}


def test_a_stopped_agent_ends_no_credential(side: Side) -> None:
    made = side.declare(Scope(kind=ScopeKind.AGENT, key="tester"))
    assert side.revoker.advance(made)
    assert (side.github.ended, side.rows()) == ([], [])
    assert side.receipt(made)["provider"] == {"answer": ProviderAnswer.NOT_ASKED, "accounts": []}


def test_two_processes_ask_once(side: Side) -> None:
    made = side.declare()

    def twice(asked: Ended) -> Any:
        if len(side.github.ended) == 1:
            side.asker.advance(made)
        return (204, {}, b"")

    side.github.ending = twice
    assert side.revoker.advance(made)
    assert len(side.github.ended) == 1
