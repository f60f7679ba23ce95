"""A refused assertion is its account's alone, until another key is accepted for that account: then it was the key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from joserfc import jwt
from joserfc.errors import BadSignatureError
from joserfc.jwk import RSAKey
from joserfc.jws import extract_compact

from identity.connections.registry import paused_reason
from identity.connections.secrets import PRIVATE_KEY, live_secrets, rotate_secret, seal_secret
from identity.errors import Misconfigured, Unavailable
from identity.model import Credential
from identity.refresh.coordinator import Coordinator
from identity.secret import Secret
from tests.identity.keys import pem
from tests.identity.providers import PretendProvider, Reply, reply
from tests.identity.services import Make, service
from tests.identity.world import ANNA, World

OLD, NEW = "key-1", "key-2"
MINUTE = timedelta(minutes=1)
TOMORROW = datetime.now(UTC) + timedelta(days=1)
Shown = list[tuple[str, str]]  # for whom, and by which key, each assertion was


def rotate(world: World, *, used_from: datetime | None = None, key_id: str | None = None) -> None:
    new = seal_secret(
        world.vault,
        world.owner,
        id=NEW,
        name=PRIVATE_KEY,
        secret=Secret(pem(number=2)),
        now=world.clock.now,
        used_from=used_from,
        key_id=key_id,
    )
    world.store.write(lambda connection: rotate_secret(connection, new, retire_at=None))
    world.clock.advance(MINUTE)


def order(world: World) -> list[str]:
    return [one.id for one in world.store.read(lambda c: live_secrets(c, "forge", PRIVATE_KEY))]


@cache
def checker(number: int) -> RSAKey:
    return RSAKey.import_key(pem(number=number))


def claims(assertion: str) -> tuple[str, dict[str, Any]]:
    """By which key it is signed, and what it says."""
    for name, number in ((OLD, 1), (NEW, 2)):
        try:
            return name, jwt.decode(assertion, checker(number), algorithms=["RS256"]).claims
        except BadSignatureError:
            continue
    raise AssertionError("it is signed by neither key")


def accepts(provider: PretendProvider, *keys: str, gone: str = "nobody", code: str = "invalid_grant") -> Shown:
    """The provider knows these keys, and is not told any more that it may act as *gone*: it says *code*."""
    shown: Shown = []

    def answer(form: dict[str, str]) -> Reply:
        by, said = claims(form["assertion"])
        shown.append((said["sub"], by))
        if by not in keys or said["sub"] == gone:
            return reply({"error": code}, 400)
        return reply({"access_token": "minted", "expires_in": 3599, "token_type": "Bearer"})

    provider.answer = answer
    return shown


@pytest.fixture
def house(make: Make) -> tuple[World, Coordinator, str, str]:
    """Two accounts of one connection that act as ada and as grace."""
    world, coordinator = make("google", service_account="robot@project.example")
    ada = service(world, Credential.JWT_BEARER, external_id="ada")
    grace = service(world, Credential.JWT_BEARER, key=ANNA, external_id="grace")
    return world, coordinator, ada, grace


House = tuple[World, Coordinator, str, str]


def test_a_new_key_gives_way_to_the_old_one_and_back_as_the_provider_accepts_them(
    house: House, provider: PretendProvider
) -> None:
    world, coordinator, ada, grace = house
    rotate(world)
    shown = accepts(provider, OLD)
    assert coordinator.refresh(ada, after_generation=1) == 2
    assert (shown, order(world)) == ([("ada", NEW), ("ada", OLD)], [OLD, NEW])
    assert world.audited("connection.secret_refused") == 1
    assert coordinator.refresh(grace, after_generation=1) == 2
    assert shown[2:] == [("grace", OLD)]
    shown = accepts(provider, NEW)  # there the key is changed now
    assert coordinator.refresh(ada, after_generation=2) == 3
    assert (shown, order(world)) == ([("ada", OLD), ("ada", NEW)], [NEW, OLD])
    assert world.audited("connection.secret_refused") == 2


@pytest.mark.parametrize("code", ["invalid_grant", "unauthorized_client"])
def test_an_account_whose_consent_is_gone_disturbs_no_rotation(
    house: House, provider: PretendProvider, code: str
) -> None:
    world, coordinator, ada, grace = house
    rotate(world)
    shown = accepts(provider, OLD, NEW, gone="ada", code=code)
    for generation, minutes in ((1, 1), (2, 2)):
        with pytest.raises(Misconfigured, match="its key, at this machine's clock"):
            coordinator.refresh(ada, after_generation=1)
        assert coordinator.refresh(grace, after_generation=generation) == generation + 1
        with pytest.raises(Unavailable):
            coordinator.refresh(ada, after_generation=1)
        world.clock.advance(minutes * MINUTE)
    assert shown == [("ada", NEW), ("ada", OLD), ("grace", NEW)] * 2
    assert (order(world), world.audited("connection.secret_refused")) == ([NEW, OLD], 0)


def test_an_account_that_its_customer_has_delegated_nothing_of_pauses_no_other_customer(
    house: House, provider: PretendProvider
) -> None:
    """Google says `unauthorized_client` of an account in whose domain an admin has not allowed the service account."""
    world, coordinator, ada, grace = house
    accepts(provider, OLD, gone="ada", code="unauthorized_client")
    with pytest.raises(Misconfigured, match="at what it was allowed there"):
        coordinator.refresh(ada, after_generation=1)
    assert not world.store.read(lambda connection: paused_reason(connection, "forge"))
    assert coordinator.refresh(grace, after_generation=1) == 2
    with pytest.raises(Unavailable):  # it waits, and longer each time
        coordinator.refresh(ada, after_generation=1)


def test_each_key_signs_with_its_own_kid(make: Make, provider: PretendProvider) -> None:
    """A server that selects by it would find one of the two only."""
    world, coordinator = make("google", service_account="robot@project.example", key_id="k-old")
    ada = service(world, Credential.JWT_BEARER, external_id="ada")
    rotate(world, key_id="k-new")
    shown: list[tuple[str, str]] = []

    def answer(form: dict[str, str]) -> Reply:
        by, _ = claims(form["assertion"])
        shown.append((by, extract_compact(form["assertion"].encode()).headers()["kid"]))
        return reply({"error": "invalid_grant"}, 400) if by == NEW else reply({"access_token": "m", "expires_in": 9})

    provider.answer = answer
    assert coordinator.refresh(ada, after_generation=1) == 2
    assert shown == [(NEW, "k-new"), (OLD, "k-old")]


def test_a_key_signs_no_assertion_before_its_switch_date(house: House, provider: PretendProvider) -> None:
    world, coordinator, ada, grace = house
    rotate(world, used_from=TOMORROW)
    shown = accepts(provider, OLD, gone="ada")
    with pytest.raises(Misconfigured):
        coordinator.refresh(ada, after_generation=1)
    assert coordinator.refresh(grace, after_generation=1) == 2
    assert shown == [("ada", OLD), ("grace", OLD)]
    assert (order(world), world.audited("connection.secret_refused")) == ([OLD, NEW], 0)


def test_a_client_that_is_refused_with_a_key_that_is_known_as_refused_pauses_nothing(
    house: House, provider: PretendProvider
) -> None:
    """The new key's refusal may be the account's own consent's."""
    world, coordinator, ada, grace = house
    rotate(world)
    shown: Shown = []

    def answer(form: dict[str, str]) -> Reply:
        by, said = claims(form["assertion"])
        shown.append((said["sub"], by))
        if by == OLD:
            return reply({"error": "invalid_client"}, 401)
        return reply({"error": "invalid_grant"}, 400) if said["sub"] == "ada" else reply({"access_token": "minted"})

    provider.answer = answer
    with pytest.raises(Misconfigured, match="its key, at this machine's clock"):
        coordinator.refresh(ada, after_generation=1)
    assert shown == [("ada", NEW), ("ada", OLD)] * 2
    assert not world.store.read(lambda connection: paused_reason(connection, "forge"))
    assert coordinator.refresh(grace, after_generation=1) == 2
    assert order(world) == [NEW, OLD]


def test_a_client_that_is_refused_with_the_second_key_pauses_the_connection(
    house: House, provider: PretendProvider
) -> None:
    world, coordinator, ada, _ = house
    rotate(world)

    def answer(form: dict[str, str]) -> Reply:
        by, _ = claims(form["assertion"])
        return reply({"error": "invalid_grant"}, 400) if by == NEW else reply({"error": "unsupported_grant_type"}, 400)

    provider.answer = answer
    with pytest.raises(Misconfigured, match="refused the client"):
        coordinator.refresh(ada, after_generation=1)
    why = world.store.read(lambda connection: paused_reason(connection, "forge"))
    assert why is not None
    assert "client, which authenticated by its private_key (unsupported_grant_type)" in why
    assert provider.presented.total() == 2
