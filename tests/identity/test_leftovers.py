"""What a connect had won before it was refused ends at the provider, and nothing else of the person there does."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from identity.accounts.grants import token_binding
from identity.connect.flow import Connected
from identity.connect.leftovers import GENERATION, Leftover, leave
from identity.connect.reasons import Why
from identity.connections.secrets import CLIENT_SECRET, rotate_secret, seal_secret
from identity.errors import Unavailable
from identity.keys.vault import Vault
from identity.model import AccountKey, AccountState, Scope, ScopeKind, TokenAnswer
from identity.providers import PROFILES
from identity.secret import Secret
from identity.tables import provider_connections
from identity.tenants import Tenants
from identity.withdrawals.awaiting import kept
from identity.withdrawals.stuck_leftovers import ask_leftover_again, stuck_leftovers
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.token_revocation import ACCESS, REFRESH
from identity.withdrawals.withdrawal import Counts, Origin, WithdrawalState, claim, postpone
from tests.identity.asking import ask
from tests.identity.browser_flow import ANNAS_BROWSER, BrowserFlow, link_person, why
from tests.identity.peer import ENDS, Peer
from tests.identity.places import acts_in, list_place
from tests.identity.providers import PretendProvider, reply
from tests.identity.stores import FailingStore
from tests.identity.world import ANNA
from tests.servers.oidc import Oidc


def revoked_meanwhile(flow: BrowserFlow, provider: PretendProvider) -> Why:
    def answer(form: dict[str, str]) -> Any:
        flow.world.revoke(Scope(kind=ScopeKind.ACCOUNT, key=str(ANNA)))
        return provider.rotate(form)

    provider.answer = answer
    return why(flow.consents())


def linked_elsewhere(flow: BrowserFlow, provider: PretendProvider) -> Why:
    link_person(flow, "robot", "4711")
    return why(flow.consents())


def wrong_account(flow: BrowserFlow, provider: PretendProvider) -> Why:
    link_person(flow, "anna", "815", login="hubot")
    return why(flow.consents())


def another_companys_workspace(flow: BrowserFlow, provider: PretendProvider) -> Why:
    acts_in(flow, "T_OTHER")
    list_place(flow, "T_ACME", "acme")
    refused = why(flow.consents())
    acts_in(flow, "T_ACME")
    return refused


def whose_was_not_said(flow: BrowserFlow, provider: PretendProvider) -> Why:
    provider.user = None
    return why(flow.consents())


def client_corrected_meanwhile(flow: BrowserFlow, provider: PretendProvider) -> Why:
    def answer(form: dict[str, str]) -> Any:
        flow.world.store.write(lambda c: c.execute(update(provider_connections).values(client_id="other")).rowcount)
        return provider.rotate(form)

    provider.answer = answer
    return why(flow.consents(any_account=True))


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (revoked_meanwhile, Why.REVOKED),
        (linked_elsewhere, Why.LINKED_ELSEWHERE),
        (wrong_account, Why.WRONG_ACCOUNT),
        (another_companys_workspace, Why.WRONG_ACCOUNT),
        (whose_was_not_said, Why.PROVIDER),
        (client_corrected_meanwhile, Why.INTERRUPTED),
    ],
)
def test_what_a_refused_connect_had_won_ends_at_the_provider_by_its_own_name(
    flow: BrowserFlow,
    provider: PretendProvider,
    refused: Callable[[BrowserFlow, PretendProvider], Why],
    reason: Why,
) -> None:
    assert refused(flow, provider) is reason
    provider.ending = lambda _: (202, {}, b"")
    row = ask(flow.world, flow.http, flow.profile)
    (ended,) = provider.ended
    assert (ended.path, json.loads(ended.body)) == ("/credentials/revoke", {"credentials": ["refresh-1", "access-1"]})
    assert ended.headers["x-aswhom-revocation"] == row.id
    assert (row.state, row.access_sealed, row.refresh_sealed) == (WithdrawalState.DONE, None, None)
    provider.user, provider.answer = {"id": 815, "login": "hubot"}, provider.rotate
    assert isinstance(flow.consents(), Connected)  # nobody has to wait for it


def test_what_was_merely_put_off_is_ended_still_and_waits_for_no_confirmation(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    """Nor may a connect begin that it would be spared for."""
    world, flow.profile = flow.world, replace(PROFILES["github"], renewal=None)
    assert whose_was_not_said(flow, provider) is Why.PROVIDER
    (row,) = world.store.read(lambda c: c.execute(select(withdrawals)).all())
    now, later = world.clock.now, world.clock.now + timedelta(seconds=30)

    def put_off(connection: Connection) -> None:
        assert claim(connection, row.id, now=now, until=later) is not None
        postpone(connection, row.id, due_at=later, reason="the gate is full", counts=Counts.NOTHING)

    world.store.write(put_off)
    assert world.store.read(lambda c: kept(c, [row.account_id])) == []
    with pytest.raises(Unavailable, match="being ended"):
        flow.start()


def test_what_a_provider_does_not_end_is_stuck_with_its_reason_until_an_operator_acts(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    """It is on no receipt, and may be the live token of whoever was revoked in that very moment."""
    assert whose_was_not_said(flow, provider) is Why.PROVIDER
    provider.ending = lambda _: (404, {}, b"")
    assert ask(flow.world, flow.http, flow.profile, tries=2).state == WithdrawalState.PENDING
    assert flow.world.audited("connect.not_ended") == 0
    flow.world.clock.advance(timedelta(minutes=10))
    row = ask(flow.world, flow.http, flow.profile, tries=2)
    assert (row.state, row.finished_at) == (WithdrawalState.STUCK, None)
    assert "asked 2 times: it answered 404" in row.reason
    assert flow.world.audited("connect.not_ended") == 1
    store, now = flow.world.store, flow.world.clock.now
    (left,) = store.read(lambda c: stuck_leftovers(c, Tenants.of("acme"), limit=9))
    assert (left.id, left.account, left.reason) == (row.id, row.account_id, row.reason)
    assert store.read(lambda c: stuck_leftovers(c, Tenants.of("globex"), limit=9)) == []
    provider.user = {"id": 4711, "login": "anna"}
    assert isinstance(flow.consents(), Connected)  # nobody has to wait for it
    assert store.write(lambda c: ask_leftover_again(c, row.id, now=now)) == 1
    provider.ending = lambda _: (202, {}, b"")
    row = ask(flow.world, flow.http, flow.profile, tries=2)
    assert (row.state, row.access_sealed, row.refresh_sealed) == (WithdrawalState.DONE, None, None)
    assert store.write(lambda c: ask_leftover_again(c, row.id, now=now)) == 0


def test_what_was_won_for_the_client_before_a_correction_is_never_asked_about_as_the_one_after(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    """Another client is told nothing of it, or that it has ended (RFC 7009 §2.2)."""
    by_client, before = replace(PROFILES["github"], renewal=None), flow.world.owner.client_id
    assert client_corrected_meanwhile(flow, provider) is Why.INTERRUPTED
    provider.ending = lambda ended: (401 if f"/{before}/" in ended.path else 404, {}, b"")
    assert ask(flow.world, flow.http, by_client, tries=1).state == WithdrawalState.STUCK
    (ended,) = provider.ended
    assert ended.path == f"/applications/{before}/grant"
    assert flow.world.audited("connect.not_ended") == 1
    assert flow.world.state() is AccountState.PENDING


def test_what_was_won_for_the_former_client_is_ended_with_its_secret_while_that_is_live(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    world, by_client = flow.world, replace(PROFILES["github"], renewal=None)
    assert client_corrected_meanwhile(flow, provider) is Why.INTERRUPTED
    world.clock.advance(timedelta(minutes=10))
    given = seal_secret(
        world.vault, world.owner, id="secret-2", name=CLIENT_SECRET, secret=Secret("new"), now=world.clock.now
    )
    world.store.write(lambda c: rotate_secret(c, given, retire_at=None))
    as_former = f"Basic {b64encode(f'{world.owner.client_id}:client-canary'.encode()).decode()}"
    provider.ending = lambda ended: (204 if ended.headers["authorization"] == as_former else 401, {}, b"")
    assert ask(world, flow.http, by_client).state == WithdrawalState.PENDING  # the new one had its turn
    world.clock.advance(timedelta(minutes=10))
    assert ask(world, flow.http, by_client).state == WithdrawalState.DONE


def test_what_a_host_lacks_the_vaults_key_for_is_left_to_one_that_has_it(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    """As in a restart host by host, after a new key began to write."""
    assert whose_was_not_said(flow, provider) is Why.PROVIDER
    provider.ending = lambda _: (202, {}, b"")
    row = ask(flow.world, flow.http, flow.profile, tries=1, vault=Vault({2: bytes(32)}, os.urandom))
    assert (row.state, row.tries, provider.ended) == (WithdrawalState.PENDING, 0, [])
    assert "needs vault key 1" in row.reason
    assert row.due_at == flow.world.clock.now + timedelta(minutes=5)
    flow.world.clock.advance(timedelta(minutes=5))
    assert ask(flow.world, flow.http, flow.profile).state == WithdrawalState.DONE
    assert len(provider.ended) == 1


def test_what_no_host_had_the_vaults_key_for_in_a_day_of_tries_is_stuck_with_its_reason(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    """Else some could not connect again as long as the ledger lives, and nobody would see why."""
    assert whose_was_not_said(flow, provider) is Why.PROVIDER
    other, quarter = Vault({2: bytes(32)}, os.urandom), timedelta(minutes=15)
    for _ in range(2):  # a day in which nobody was there to try says nothing
        flow.world.clock.advance(timedelta(days=1))
        row = ask(flow.world, flow.http, flow.profile, vault=other, keyless=quarter)
        assert (row.state, row.tries) == (WithdrawalState.PENDING, 0)
    assert flow.world.audited("connect.not_ended") == 0
    flow.world.clock.advance(timedelta(minutes=5))
    row = ask(flow.world, flow.http, flow.profile, vault=other, keyless=quarter)
    assert (row.state, row.access_sealed is None) == (WithdrawalState.STUCK, False)
    assert "needs vault key 1" in row.reason
    assert (flow.world.audited("connect.not_ended"), provider.ended) == (1, [])


def test_where_asking_would_end_somebody_elses_consent_too_it_is_not_asked(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    flow.profile = replace(PROFILES["github"], renewal=None)
    _bea_connects(flow)
    assert why(flow.consents()) is Why.LINKED_ELSEWHERE
    row = ask(flow.world, flow.http, flow.profile)
    assert provider.ended == []
    assert (row.state, row.access_sealed) == (WithdrawalState.NOT_ASKED, None)
    assert "of the same person there, too" in row.reason
    assert flow.world.audited("connect.not_ended") == 1, "no receipt tells of it"


def _bea_connects(flow: BrowserFlow) -> None:
    bea = replace(ANNA, principal="robot")
    assert isinstance(flow.consents(bea), Connected)


def test_a_token_that_slack_may_have_given_twice_is_not_ended_under_another_account(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    flow.profile = replace(PROFILES["github"], renewal=None, revocation=PROFILES["slack"].revocation)
    provider.answer = lambda form: reply({"access_token": "the-same", "token_type": "bearer"})
    _bea_connects(flow)
    assert why(flow.consents()) is Why.LINKED_ELSEWHERE
    assert ask(flow.world, flow.http, flow.profile).state == WithdrawalState.NOT_ASKED


def test_a_consent_that_was_stored_after_all_is_not_ended(flow: BrowserFlow) -> None:
    world = flow.world
    assert isinstance(flow.consents(), Connected)
    answer = TokenAnswer(access_token=Secret("a"), refresh_token=None, expires_at=None, scopes=(), token_type="bearer")
    left = Leftover(key=ANNA, provider="github", client_id="client", started=world.grant().consented, answer=answer)
    world.store.write(lambda c: leave(c, left, left.sealed(world.vault), account_id="new", now=world.clock.now))
    assert world.store.read(lambda c: c.execute(select(withdrawals)).all()) == []


def test_what_a_connect_had_won_that_fails_in_a_way_nobody_foresaw_is_left_and_ended_too(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    state = flow.authorize(flow.start())["state"]

    def fails(_connection: Connection, _key: AccountKey) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        flow.connect.finish(
            {"code": "c", "state": state},
            browser=ANNAS_BROWSER,
            connection_id="forge",
            now=flow.world.clock.now,
            also=fails,
        )
    (row,) = flow.world.store.read(lambda c: c.execute(select(withdrawals)).all())
    assert (row.state, row.origin, row.external_id) == (WithdrawalState.PENDING, Origin.CONNECT, "4711")
    # Its own session, which noted no outcome, is nobody's later consent.
    row = ask(flow.world, flow.http, replace(PROFILES["github"], renewal=None))
    assert (row.state, len(provider.ended)) == (WithdrawalState.DONE, 1)


def test_a_certified_server_knows_the_tokens_of_a_refused_connect_no_more(peer: Peer, oidc: Oidc) -> None:
    world, config = peer.world, {"issuer": oidc.issuer, "revocation_url": oidc.revocation_url}
    world.store.write(lambda c: c.execute(update(provider_connections).values(config=config)).rowcount)
    store = world.store
    faults = {4: "no turn", 5: "no turn", 6: "commit lost", 7: "commit unseen"}
    world.store = FailingStore(store, faults)  # type: ignore[assignment]
    assert why(peer.connect()) is Why.INTERRUPTED
    world.store = store
    assert world.audited("connect.refused") == 1
    (row,) = store.read(lambda c: c.execute(select(withdrawals)).all())
    sealed = {ACCESS: row.access_sealed, REFRESH: row.refresh_sealed}
    won = [
        world.vault.open(value, token_binding("acme", row.id, "peer", name, GENERATION)).reveal()
        for name, value in sealed.items()
    ]
    assert all(oidc.is_active(token) for token in won)
    assert ask(world, peer.http, ENDS).state == WithdrawalState.DONE
    assert [shown.outcome for shown in oidc.log(won[1]) if shown.kind == "revocation"] == ["ok"]
    assert not any(oidc.is_active(token) for token in won)
