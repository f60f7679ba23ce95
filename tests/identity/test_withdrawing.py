"""What a provider is shown when it is asked to end a credential: the token, and the client's own secret at most."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from urllib.parse import parse_qsl

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import insert, select, update

from identity.accounts.grants import token_binding
from identity.connections.registry import rewrite_connection
from identity.connections.secrets import CLIENT_SECRET, PRIVATE_KEY, add_secret, retire_secret, seal_secret
from identity.crash_points import none_reached
from identity.errors import Unavailable
from identity.http.client import Answer, Client
from identity.model import Credential, Scope, ScopeKind
from identity.providers import PROFILES
from identity.refresh.intents import TOKEN_ANSWER
from identity.secret import Secret
from identity.sql.store import Store
from identity.tables import provider_connections
from identity.token_endpoint.budget import RefreshBudget
from identity.token_endpoint.endpoint import TokenEndpoint, pack
from identity.token_endpoint.gate import Endpoint, Gate
from identity.withdrawals.budget import WithdrawalBudget
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.taking import EndedConsents, take_grant
from identity.withdrawals.withdrawal import Origin, Withdrawal, WithdrawalState, get_withdrawal
from identity.withdrawals.withdrawer import Withdrawer
from tests.identity.coordinators import MakeCoordinator
from tests.identity.keys import pem
from tests.identity.outdated import put_out_of_date
from tests.identity.published_providers import Server, server
from tests.identity.stores import EngineStore, FailingStore
from tests.identity.world import ANNA, ROBOT, World


class Salesforce:
    """A service whose token was exchanged for an assertion, at an organization that records what it is shown."""

    def __init__(self, store: EngineStore, http: Client, shown: Server) -> None:
        self.shown = shown
        self.world = world = World(store=store, url=shown.url, provider="salesforce").build()
        owner = replace(world.owner, config={"revocation_url": f"{shown.url}/revoke"})
        key = seal_secret(world.vault, owner, id="key-1", name=PRIVATE_KEY, secret=Secret(pem()), now=world.clock.now)
        store.write(lambda c: rewrite_connection(c, owner))
        store.write(lambda c: add_secret(c, key))
        coordinator = MakeCoordinator(world, http)(store=store, budget=RefreshBudget())
        self.seconds = 0.0
        self.gate = Gate(None, monotonic=lambda: self.seconds)
        self._endpoint = TokenEndpoint(client=http, budget=timedelta(seconds=5), gate=self.gate)
        self.write_by(store)
        account = world.service(Credential.JWT_BEARER, external_id="ada")
        shown.say(200, {"access_token": "minted-1", "token_type": "Bearer"})
        assert coordinator.refresh(account, after_generation=1) == 2
        del shown.asked[:]

    def write_by(self, store: Store) -> None:
        """What asks has this store from here on."""
        world = self.world
        self.withdrawer = Withdrawer(store, world.vault, self._endpoint, PROFILES, clock=world.clock, ids=world.id)

    def withdraw(self) -> Withdrawal:
        """Revoke the account, and ask once for its end."""
        world = self.world
        ended = EndedConsents(upto=world.revoke(Scope(kind=ScopeKind.ACCOUNT, key=str(ROBOT))))
        account = world.account(ROBOT)
        taken = world.store.write(lambda c: take_grant(c, account, ended, revocation=None, now=world.clock.now))
        assert taken is not None
        return self.ask(taken)

    def ask(self, withdrawal: str) -> Withdrawal:
        """Ask about it; what it is then."""
        self.withdrawer.ask(withdrawal)
        found = self.world.store.read(lambda c: get_withdrawal(c, withdrawal))
        assert found is not None
        return found


@pytest.fixture
def salesforce(store: EngineStore, http: Client) -> Iterator[Salesforce]:
    with server() as shown:
        yield Salesforce(store, http, shown)


def test_while_two_secrets_are_live_each_has_its_turn_where_a_token_ends(salesforce: Salesforce) -> None:
    world = salesforce.world
    new = seal_secret(
        world.vault, world.owner, id="secret-2", name=CLIENT_SECRET, secret=Secret("second"), now=world.clock.now
    )
    world.store.write(lambda c: add_secret(c, new))
    salesforce.shown.say(401, {"error": "invalid_client"})
    withdrawal = salesforce.withdraw()
    assert withdrawal.state is WithdrawalState.PENDING
    salesforce.shown.say(200, None)
    world.clock.advance(timedelta(minutes=1))
    assert salesforce.ask(withdrawal.id).state is WithdrawalState.DONE
    assert [b"second" in asked.body for asked in salesforce.shown.asked] in ([True, False], [False, True])


def test_the_key_that_signed_for_a_token_is_not_shown_where_the_token_ends(salesforce: Salesforce) -> None:
    assert salesforce.withdraw().state is WithdrawalState.DONE
    (asked,) = salesforce.shown.asked
    assert (asked.path, b"minted-1" in asked.body, b"client-canary" in asked.body) == ("/revoke", True, True)
    assert b"PRIVATE" not in asked.body


def test_a_client_that_has_a_key_alone_asks_for_no_end_and_says_so(salesforce: Salesforce) -> None:
    world = salesforce.world
    world.store.write(lambda c: retire_secret(c, "secret-1", at=world.clock.now - timedelta(days=365)))
    withdrawal = salesforce.withdraw()
    assert salesforce.shown.asked == []
    assert withdrawal.state is WithdrawalState.NOT_ASKED


def test_what_cannot_be_asked_about_as_things_are_configured_is_stuck_after_its_tries(salesforce: Salesforce) -> None:
    """And not set aside for ever: an operator sees it, mends it and has it asked again."""
    world = salesforce.world
    odd = update(provider_connections).values(provider="gone")  # a row that this version has no more
    world.store.write(lambda c: c.execute(odd).rowcount)
    withdrawal = salesforce.withdraw()
    assert (withdrawal.state, withdrawal.tries) == (WithdrawalState.PENDING, 1)
    for _ in range(WithdrawalBudget().tries - 1):
        assert withdrawal.state is WithdrawalState.PENDING
        assert salesforce.ask(withdrawal.id).tries == withdrawal.tries, "it waits for its pause"
        world.clock.advance(WithdrawalBudget().longest)
        withdrawal = salesforce.ask(withdrawal.id)
    assert (withdrawal.state, salesforce.shown.asked) == (WithdrawalState.STUCK, [])


@pytest.mark.parametrize(("status", "outcome"), [(200, "done"), (500, "later")])
def test_what_came_of_asking_is_counted_once_it_is_written(salesforce: Salesforce, status: int, outcome: str) -> None:
    counted = partial(REGISTRY.get_sample_value, "aswhom_withdrawals_asked_total", {"outcome": outcome})
    before = counted() or 0
    salesforce.shown.say(status, None)
    salesforce.write_by(FailingStore(salesforce.world.store, {2: "no turn"}))  # the first is the claim
    with pytest.raises(Unavailable):
        salesforce.withdraw()
    assert (counted() or 0) == before


def test_whoever_asks_is_told_that_there_is_no_room_for_more_and_the_try_does_not_count(salesforce: Salesforce) -> None:
    world = salesforce.world
    to = Endpoint(connection=world.owner.id, url=f"{salesforce.shown.url}/revoke")
    salesforce.gate.pause(to, timedelta(minutes=1))
    withdrawal = salesforce.withdraw()
    assert (withdrawal.state, withdrawal.tries, salesforce.shown.asked) == (WithdrawalState.PENDING, 0, [])
    world.clock.advance(timedelta(minutes=1))
    assert not salesforce.withdrawer.ask(withdrawal.id).room
    world.clock.advance(timedelta(minutes=1))
    salesforce.seconds += 60
    assert salesforce.withdrawer.ask(withdrawal.id).room
    assert len(salesforce.shown.asked) == 1


class OwnServer:
    """An account of a person at a server of one's own, which is asked to end what was revoked."""

    def __init__(self, store: EngineStore, http: Client, shown: Server, *, provider: str = "oauth2") -> None:
        self.shown, self.store = shown, store
        self.world = world = World(store=store, url=shown.url, provider=provider).build()
        config = {"revocation_url": f"{shown.url}/revoke"} if provider == "oauth2" else {}
        owner = replace(world.owner, config=config)
        store.write(lambda c: rewrite_connection(c, owner))
        self.gate = Gate(None)
        self._endpoint = TokenEndpoint(client=http, budget=timedelta(seconds=5), gate=self.gate)
        self.withdrawer = self._withdrawer()
        world.try_consent(tokens=("its-access", "its-refresh"))
        shown.say(200, None)

    def _withdrawer(self, reached: Callable[[str], None] = none_reached) -> Withdrawer:
        world = self.world
        return Withdrawer(
            self.store, world.vault, self._endpoint, PROFILES, clock=world.clock, ids=world.id, reached=reached
        )

    def asked_to_pause_after_the_first(self) -> None:
        """Another process is told to wait, between the two requests of this one."""
        to = Endpoint(connection=self.world.owner.id, url=f"{self.shown.url}/revoke")

        def pauses(point: str) -> None:
            if point == "after_withdrawal_sent":
                self.gate.pause(to, timedelta(hours=1))

        self.withdrawer = self._withdrawer(pauses)

    def take_won(self, *, expires_in: int = 3600) -> str:
        """What a refresh won after its account was revoked."""
        world, account = self.world, self.world.account()
        won = {"access_token": "its-access", "refresh_token": "its-refresh", "token_type": "bearer"}
        body = json.dumps({**won, "expires_in": expires_in}).encode()
        answer = Answer(status=200, headers={}, body=body, elapsed=timedelta())
        binding = token_binding(account.key.tenant, account.id, account.provider, TOKEN_ANSWER, 1)
        row = {
            "id": "ref-1",
            "account_id": account.id,
            "origin": Origin.REFRESH,
            "credential": account.credential,
            "generation": 1,
            "consented": 1,
            "state": WithdrawalState.PENDING,
            "answer_sealed": world.vault.seal(pack(answer), binding),
            "due_at": world.clock.now,
            "created_at": world.clock.now,
        }
        self.store.write(lambda c: c.execute(insert(withdrawals).values(row)).rowcount)
        return "ref-1"

    def take(self) -> str:
        world = self.world
        ended = EndedConsents(upto=world.revoke(Scope(kind=ScopeKind.ACCOUNT, key=str(ANNA))))
        taken = self.store.write(lambda c: take_grant(c, world.account(), ended, revocation=None, now=world.clock.now))
        assert taken is not None
        return taken

    def ask(self, withdrawal: str) -> Withdrawal:
        self.withdrawer.ask(withdrawal)
        found = self.store.read(lambda c: get_withdrawal(c, withdrawal))
        assert found is not None
        return found

    def presented(self) -> list[tuple[str, str]]:
        """The tokens that it was shown, and what each was said to be."""
        forms = [dict(parse_qsl(asked.body.decode())) for asked in self.shown.asked]
        return [(form["token"], form["token_type_hint"]) for form in forms]


@pytest.fixture
def own(store: EngineStore, http: Client) -> Iterator[OwnServer]:
    with server() as shown:
        yield OwnServer(store, http, shown)


BOTH = [("its-refresh", "refresh_token"), ("its-access", "access_token")]


def test_at_a_server_of_ones_own_both_tokens_are_presented_before_it_is_done(own: OwnServer) -> None:
    """RFC 7009 §2.1: that the access token ends with the refresh token is a SHOULD, where it can."""
    own.shown.about[b"its-access"] = (503, None)
    withdrawal = own.ask(own.take())
    assert (own.presented(), withdrawal.state) == (BOTH, WithdrawalState.PENDING)
    own.shown.about[b"its-access"] = (200, None)
    own.shown.about[b"its-refresh"] = (400, {"error": "invalid_request"})  # so some say of what has ended
    own.world.clock.advance(timedelta(minutes=1))
    withdrawal = own.ask(withdrawal.id)
    assert (own.presented(), withdrawal.state) == ([*BOTH, BOTH[1]], WithdrawalState.DONE)
    assert withdrawal.access_sealed is None


def test_a_token_that_the_server_refuses_to_end_keeps_it_from_the_other_in_no_try(own: OwnServer) -> None:
    own.shown.about[b"its-refresh"] = (400, {"error": "unsupported_token_type"})
    withdrawal = own.ask(own.take())
    assert (own.presented(), withdrawal.state) == (BOTH, WithdrawalState.PENDING)
    own.shown.about[b"its-refresh"] = (401, {"error": "invalid_client"})
    own.world.clock.advance(timedelta(minutes=1))
    withdrawal = own.ask(withdrawal.id)
    assert (own.presented(), withdrawal.state) == ([*BOTH, BOTH[0]], WithdrawalState.PENDING)


def test_an_access_token_that_a_signal_had_dropped_is_on_the_receipt(own: OwnServer) -> None:
    """Nobody has it any more to ask about, and it may live."""
    assert put_out_of_date(own.world, ANNA)
    taken = own.take()
    assert own.ask(taken).state is WithdrawalState.DONE
    assert own.presented() == BOTH[:1]
    (reason,) = own.store.read(lambda c: c.execute(select(withdrawals.c.reason)).scalars().all())
    assert reason is not None
    assert "out of use" in reason
    assert "good until it expires" in reason


def test_with_the_access_token_dropped_slack_is_not_asked_by_what_renews_it(store: EngineStore, http: Client) -> None:
    """It knows access tokens alone: shown what renews one, it would say that there is no such token."""
    with server() as shown:
        slack = OwnServer(store, http, shown, provider="slack")
        shown.say(200, {"ok": False, "error": "invalid_auth"})
        assert put_out_of_date(slack.world, ANNA)
        withdrawal = slack.ask(slack.take())
        assert (withdrawal.state, shown.asked) == (WithdrawalState.STUCK, [])
        assert withdrawal.refresh_sealed is not None


def test_a_server_that_ends_no_access_tokens_has_it_said_on_the_receipt(own: OwnServer) -> None:
    own.shown.about[b"its-access"] = (400, {"error": "unsupported_token_type"})
    taken = own.take()
    assert own.ask(taken).state is WithdrawalState.DONE
    (reason,) = own.store.read(lambda c: c.execute(select(withdrawals.c.reason)).scalars().all())
    assert reason is not None
    assert "good until it expires" in reason


@pytest.fixture
def half_done(own: OwnServer) -> str:
    """A withdrawal whose refresh token has ended there, and whose access token has not."""
    own.shown.about[b"its-access"] = (503, None)
    return own.ask(own.take()).id


def test_it_is_said_of_the_access_token_in_a_later_try_too_that_the_server_ends_none(
    own: OwnServer, half_done: str
) -> None:
    own.shown.about[b"its-access"] = (400, {"error": "unsupported_token_type"})
    own.world.clock.advance(timedelta(minutes=1))
    withdrawal = own.ask(half_done)
    assert (withdrawal.state, own.presented()) == (WithdrawalState.DONE, [*BOTH, BOTH[1]])
    (reason,) = own.store.read(lambda c: c.execute(select(withdrawals.c.reason)).scalars().all())
    assert reason is not None
    assert "good until it expires" in reason


def test_of_what_a_refresh_won_the_half_that_has_ended_is_not_presented_again(own: OwnServer) -> None:
    """A server may answer about a token that has ended with an error of its own."""
    own.shown.about[b"its-access"] = (503, None)
    withdrawal = own.ask(own.take_won())
    assert (own.presented(), withdrawal.state) == (BOTH, WithdrawalState.PENDING)
    own.shown.about = {b"its-access": (200, None), b"its-refresh": (400, {"error": "invalid_request"})}
    own.world.clock.advance(timedelta(minutes=1))
    assert own.ask(withdrawal.id).state is WithdrawalState.DONE
    assert own.presented() == [*BOTH, BOTH[1]]


def test_nor_is_the_access_token_where_that_ended_and_what_renews_it_was_refused(own: OwnServer) -> None:
    own.shown.about[b"its-refresh"] = (400, {"error": "temporarily_unavailable"})
    withdrawal = own.ask(own.take())
    assert (own.presented(), withdrawal.state) == (BOTH, WithdrawalState.PENDING)
    own.shown.about = {b"its-access": (400, {"error": "invalid_request"})}
    own.world.clock.advance(timedelta(minutes=1))
    assert own.ask(withdrawal.id).state is WithdrawalState.DONE
    assert own.presented() == [*BOTH, BOTH[0]]


def test_an_access_token_that_a_refresh_won_and_that_has_expired_is_not_presented(own: OwnServer) -> None:
    taken = own.take_won(expires_in=600)
    own.world.clock.advance(timedelta(minutes=11))
    assert own.ask(taken).state is WithdrawalState.DONE
    assert own.presented() == BOTH[:1]


@pytest.mark.parametrize("won", [False, True], ids=["of the grant", "a refresh won"])
def test_an_access_token_that_is_left_and_soon_ends_by_itself_is_waited_for(own: OwnServer, won: bool) -> None:
    own.shown.about[b"its-access"] = (400, {"error": "invalid_request"})
    taken = own.take_won() if won else own.take()
    budget = WithdrawalBudget()
    for tries in range(1, budget.tries + 1):
        assert own.ask(taken).state is WithdrawalState.PENDING
        own.world.clock.advance(budget.pause(tries))
    assert own.presented() == BOTH[:1] + BOTH[1:] * budget.tries
    own.world.clock.advance(timedelta(hours=1))
    assert own.ask(taken).state is WithdrawalState.NOT_ASKED


def test_the_access_token_waits_where_the_server_asks_for_a_pause_between_the_two(own: OwnServer) -> None:
    own.asked_to_pause_after_the_first()
    withdrawal = own.ask(own.take())
    assert (own.presented(), withdrawal.state, withdrawal.tries) == (BOTH[:1], WithdrawalState.PENDING, 0)
    assert withdrawal.ended == "refresh_token"


def test_nor_is_a_pause_passed_over_for_it_where_what_renews_it_was_refused(own: OwnServer) -> None:
    own.shown.about[b"its-refresh"] = (400, {"error": "temporarily_unavailable"})
    own.asked_to_pause_after_the_first()
    withdrawal = own.ask(own.take())
    assert (own.presented(), withdrawal.state, withdrawal.tries) == (BOTH[:1], WithdrawalState.PENDING, 1)


def test_an_access_token_that_expires_before_a_later_try_is_not_presented(own: OwnServer, half_done: str) -> None:
    own.world.clock.advance(timedelta(hours=2))
    assert own.ask(half_done).state is WithdrawalState.NOT_ASKED
    assert own.presented() == BOTH
    (reason,) = own.store.read(lambda c: c.execute(select(withdrawals.c.reason)).scalars().all())
    assert reason == "it had expired"


def test_an_access_token_that_does_not_expire_and_that_the_server_does_not_end_is_seen(
    own: OwnServer, half_done: str
) -> None:
    """Somebody has to end it by hand."""
    own.store.write(lambda c: c.execute(update(withdrawals).values(expires_at=None)).rowcount)
    own.shown.about[b"its-access"] = (400, {"error": "unsupported_token_type"})
    own.world.clock.advance(timedelta(minutes=1))
    assert own.ask(half_done).state is WithdrawalState.PENDING


def test_an_access_token_that_has_expired_is_not_presented(own: OwnServer) -> None:
    taken = own.take()
    own.world.clock.advance(timedelta(hours=2))
    assert own.ask(taken).state is WithdrawalState.DONE
    assert own.presented() == BOTH[:1]
