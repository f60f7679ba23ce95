"""A token for one repository is asked for with an action's scopes, and its answer is read by those alone."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from sqlalchemy import select

from identity.confined import Confinement, Confiner
from identity.connection_secrets import PRIVATE_KEY, live_secrets, rotate_secret, seal_secret
from identity.connections import pause_connection
from identity.errors import Misconfigured, Unavailable
from identity.http import Client, NotSent
from identity.model import Credential
from identity.providers import PROFILES
from identity.refresh.gate import Endpoint, Gate
from identity.secret import Secret
from identity.token_endpoint import TokenEndpoint
from identity.withdrawals.tables import withdrawals
from tests.identity.keys import pem
from tests.identity.providers import PretendProvider, reply
from tests.identity.services import Make, service
from tests.identity.world import ANNA, ROBOT, World

SECOND = timedelta(seconds=1)
READS = frozenset({"pull_requests:read"})


def confined(world: World, http: Client) -> Secret | NotSent | None:
    """The token that reads pull requests, of an installation that may write them."""
    return asked(world, confiner_of(world, http), installed(world))


def installed(world: World) -> str:
    """The account of an installation that may write pull requests."""
    may = ("issues:write", "pull_requests:write")
    return service(world, Credential.INSTALLATION, external_id="9001", scopes=may)


def confiner_of(world: World, http: Client, *, gate: Gate | None = None, keeps: int = 10) -> Confiner:
    endpoint = TokenEndpoint(client=http, budget=timedelta(seconds=10), gate=gate or Gate(None))
    return Confiner(world.store, world.vault, endpoint, PROFILES, ids=world.id, clock=world.clock, keeps=keeps)


def asked(world: World, confiner: Confiner, account: str, *, repository: str = "acme/shop") -> Secret | NotSent | None:
    wanted = Confinement(account=account, generation=world.generation(ROBOT), repository=repository, scopes=READS)
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


def test_only_a_pause_holds_back_before_a_step_opens_and_not_where_a_token_lives_or_none_is_minted(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, _ = make("github", app_id="7")
    confiner, account = confiner_of(world, http), installed(world)
    confiner.await_minting(ROBOT, repository="acme/shop", scopes=READS)
    provider.answer = lambda form: reply({"token": "ghs_1", "expires_at": "2099-01-01T00:00:00Z"}, 201)
    assert isinstance(asked(world, confiner, account), Secret)
    world.store.write(lambda c: pause_connection(c, "forge", reason="told so"))
    confiner.await_minting(ROBOT, repository="acme/shop", scopes=READS)
    confiner.await_minting(ANNA, repository="acme/shop", scopes=READS)  # never connected: the opening says so
    with pytest.raises(Misconfigured, match="paused: told so"):
        confiner.await_minting(ROBOT, repository="acme/infra", scopes=READS)
    service(world, Credential.STATIC, key=ANNA, token=Secret("ghp_1"))
    confiner.await_minting(ANNA, repository="acme/infra", scopes=READS)


LIVES = {"expires_at": "2099-01-01T00:00:00Z"}


def test_an_endpoint_that_is_left_alone_holds_back_before_a_step_opens_and_says_for_how_long(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, _ = make("github", app_id="7")
    gate = Gate(None)
    confiner, account = confiner_of(world, http, gate=gate), installed(world)
    provider.answer = lambda form: reply(LIVES | {"token": "ghs_1"}, 201)
    assert isinstance(asked(world, confiner, account), Secret)
    gate.hold(Endpoint.of(world.owner, Credential.INSTALLATION), timedelta(minutes=7))
    confiner.await_minting(ROBOT, repository="acme/shop", scopes=READS)  # that token lives
    with pytest.raises(Unavailable, match="left alone") as held:
        confiner.await_minting(ROBOT, repository="acme/infra", scopes=READS)
    assert timedelta(minutes=6) < held.value.retry_after <= timedelta(minutes=7)
    service(world, Credential.STATIC, key=ANNA, token=Secret("ghp_1"))
    confiner.await_minting(ANNA, repository="acme/infra", scopes=READS)


@pytest.mark.parametrize(
    ("status", "why", "final"),
    [(422, "422: it lacks a permission or repository", True), (404, "404: the installation is gone", False)],
)
def test_a_refusal_says_its_code_and_only_what_this_token_asks_for_is_refused_for_good(
    make: Make, provider: PretendProvider, http: Client, status: int, why: str, final: bool
) -> None:
    world, _ = make("github", app_id="7")
    provider.answer = lambda form: reply({"message": "no"}, status)
    expected = NotSent(reason=f"no token for acme/shop alone: {why}", final=final)
    assert confined(world, http) == expected


def test_a_repository_is_the_same_however_it_is_written_and_is_asked_for_as_the_account_has_it(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, _ = make("github", app_id="7")
    account = service(
        world, Credential.INSTALLATION, external_id="9001", scopes=("pull_requests:read",), resources=("Shop", "infra")
    )
    confiner = confiner_of(world, http)
    provider.answer = lambda form: reply(LIVES | {"token": "ghs_1"}, 201)
    for written in ("acme/shop", "ACME/sHop"):
        assert isinstance(asked(world, confiner, account, repository=written), Secret)
    assert [json.loads(body)["repositories"] for body in provider.bodies] == [["Shop"]]
    assert asked(world, confiner, account, repository="acme/shoe") is None


def test_the_oldest_token_gives_way_where_no_more_are_kept(make: Make, provider: PretendProvider, http: Client) -> None:
    world, _ = make("github", app_id="7")
    confiner, account = confiner_of(world, http, keeps=2), installed(world)
    provider.answer = lambda form: reply(LIVES | {"token": "ghs_1"}, 201)
    for name in ("a", "b", "c", "b", "c", "a"):
        assert isinstance(asked(world, confiner, account, repository=f"acme/{name}"), Secret)
    assert [json.loads(body)["repositories"] for body in provider.bodies] == [["a"], ["b"], ["c"], ["a"]]
