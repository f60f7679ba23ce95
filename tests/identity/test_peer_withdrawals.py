"""Revoked credentials end at a certified authorization server (RFC 7009), and a later consent does not."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import update

from identity.accounts.grants import ACCESS, REFRESH
from identity.connect.flow import Connected
from identity.model import Scope, ScopeKind
from identity.tables import provider_connections
from identity.token_endpoint.endpoint import TokenEndpoint
from identity.token_endpoint.gate import Gate
from identity.withdrawals.withdrawal import WithdrawalState, get_withdrawal
from identity.withdrawals.withdrawer import Withdrawer
from tests.identity.peer import ENDS, KEY, Peer
from tests.ledgers import MOSTLY_SQLITE
from tests.servers.oidc import Oidc


@MOSTLY_SQLITE
def test_the_revoked_consent_ends_and_the_one_after_it_lives(peer: Peer, oidc: Oidc) -> None:
    world, config = peer.world, {"issuer": oidc.issuer, "revocation_url": oidc.revocation_url}
    world.store.write(lambda c: c.execute(update(provider_connections).values(config=config)).rowcount)
    connected = peer.connect()
    assert isinstance(connected, Connected)
    old = peer.token(ACCESS), peer.token(REFRESH)
    world.revoke(Scope(kind=ScopeKind.ACCOUNT, key=str(KEY)))
    assert all(oidc.is_active(token) for token in old)
    assert isinstance(peer.connect(), Connected)
    new = peer.token(ACCESS), peer.token(REFRESH)
    endpoint = TokenEndpoint(client=peer.http, budget=timedelta(seconds=10), gate=Gate(None))
    withdrawer = Withdrawer(world.store, world.vault, endpoint, {"peer": ENDS}, clock=world.clock, ids=world.id)
    taken = f"{connected.account}.1"
    withdrawer.ask(taken)
    withdrawer.ask(taken)
    assert [shown.outcome for shown in oidc.log(old[1]) if shown.kind == "revocation"] == ["ok"]
    assert not any(oidc.is_active(token) for token in old)
    assert all(oidc.is_active(token) for token in new)
    withdrawal = world.store.read(lambda c: get_withdrawal(c, taken))
    assert withdrawal is not None
    assert (withdrawal.state, withdrawal.refresh_sealed) == (WithdrawalState.DONE, None)
