"""A token for one repository is asked for with an action's scopes, and its answer is read by those alone."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select

from identity.confined import Confinement, Confiner
from identity.connection_secrets import PRIVATE_KEY, live_secrets, rotate_secret, seal_secret
from identity.connections import pause_connection
from identity.gate import Gate
from identity.http import Client, NotSent
from identity.model import Credential
from identity.providers import PROFILES
from identity.secret import Secret
from identity.token_endpoint import TokenEndpoint
from identity.withdrawal_table import withdrawals
from tests.identity.keys import pem
from tests.identity.providers import PretendProvider, reply
from tests.identity.test_services import Make, make, service
from tests.identity.world import ROBOT, World

SECOND = timedelta(seconds=1)
__all__ = ["make"]


def confined(world: World, http: Client) -> Secret | NotSent | None:
    """The token that reads pull requests, of an installation that may write them."""
    account = service(
        world, Credential.INSTALLATION, external_id="9001", scopes=("issues:write", "pull_requests:write")
    )
    wanted = Confinement(
        account=account,
        generation=world.generation(ROBOT),
        repository="acme/shop",
        scopes=frozenset({"pull_requests:read"}),
    )
    endpoint = TokenEndpoint(client=http, budget=timedelta(seconds=10), gate=Gate(None))
    confiner = Confiner(world.store, world.vault, endpoint, PROFILES, ids=world.id, clock=world.clock)
    return confiner.token(wanted, attempt="att_1", send_before=float("inf"))


def test_a_refused_key_gives_way_to_the_other_live_one_and_a_pause_asks_nothing(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, _ = make("github", app_id="7")
    key = seal_secret(
        world.vault, world.owner, id="key-2", name=PRIVATE_KEY, secret=Secret(pem()), now=world.clock.now + SECOND
    )
    world.store.write(lambda c: rotate_secret(c, key, retire_at=None))
    answers = [reply({"message": "no such key"}, 401), reply({"token": "ghs_1"}, 201)]
    provider.answer = lambda form: answers.pop(0)
    token = confined(world, http)
    assert isinstance(token, Secret), token
    assert [one.id for one in world.store.read(lambda c: live_secrets(c, "forge", PRIVATE_KEY))] == ["key-1", "key-2"]
    assert world.audited("connection.secret_refused") == 1
    world.store.write(lambda c: pause_connection(c, "forge", reason="told so"))
    kept = confined(world, http)
    assert isinstance(kept, NotSent)
    assert "paused: told so" in kept.reason
    assert len(provider.forms) == 2


def test_a_token_that_reads_what_the_account_may_write_is_used_and_held(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, _ = make("github", app_id="7")
    provider.answer = lambda form: reply({"token": "ghs_1", "permissions": {"pull_requests": "read"}}, 201)
    token = confined(world, http)
    assert isinstance(token, Secret), token
    assert token.reveal() == "ghs_1"
    assert world.store.read(lambda c: c.execute(select(withdrawals.c.state)).scalars().all()) == ["held"]
