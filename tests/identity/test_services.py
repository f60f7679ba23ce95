"""Services' credentials through the coordinator: minted once for all, narrowed, rotated, shown as they should be."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import redis
from joserfc import jwt
from joserfc.jwk import RSAKey
from prometheus_client import REGISTRY

from identity.accounts.grants import REFRESH
from identity.accounts.liveness import Life, ask_whose
from identity.accounts.narrowing import rescope
from identity.accounts.states import get_account
from identity.connections.authorization import KEY, authorization
from identity.connections.registry import paused_reason
from identity.connections.secrets import CLIENT_SECRET, seal_secret
from identity.errors import BadInput, Misconfigured, ReauthRequired, Unavailable
from identity.http.client import Client
from identity.model import AccountState, Credential, Leased, Scope
from identity.oauth.token_types import kept_type
from identity.providers import PROFILES
from identity.providers.permissions import allowed, permissions
from identity.refresh.coordinator import Coordinator
from identity.secret import Secret
from tests.identity.keys import pem
from tests.identity.providers import PretendProvider, Reply, reply
from tests.identity.published_providers import server
from tests.identity.services import Make, coordinator_of, service
from tests.identity.stores import EngineStore
from tests.identity.world import ROBOT, World
from tests.ledgers import ONLY_SQLITE


def test_a_signed_assertion_is_exchanged_once_for_all_workers(make: Make, provider: PretendProvider) -> None:
    world, coordinator = make("google", service_account="robot@project.example", key_id="k1")
    account = service(world, Credential.JWT_BEARER, external_id="ada@acme.example")
    provider.answer = lambda form: reply({"access_token": "minted-1", "expires_in": 3599, "token_type": "Bearer"})
    with ThreadPoolExecutor(8) as pool:
        minted = [pool.submit(coordinator.refresh, account, after_generation=1) for _ in range(8)]
        assert {each.result() for each in minted} == {2}
    (form,) = provider.forms
    assert set(form) == {"grant_type", "assertion"}
    assert world.token(ROBOT) == "minted-1"
    assert isinstance(world.examine(ROBOT), Leased)


@pytest.mark.parametrize("with_redis", [True, False])
@pytest.mark.parametrize(
    ("name", "credential", "external_id"),
    [
        ("google", Credential.JWT_BEARER, "ada@acme.example"),
        ("linear", Credential.CLIENT_CREDENTIALS, None),
        ("github", Credential.INSTALLATION, "9001"),
    ],
)
def test_a_token_is_minted_once_for_eight_processes(
    make: Make,
    provider: PretendProvider,
    http: Client,
    valkey_client: redis.Redis,
    name: str,
    credential: Credential,
    external_id: str | None,
    with_redis: bool,
) -> None:
    """A coordinator each, as processes have them: what makes it one request lies in the ledger."""
    world, _ = make(name, service_account="robot@project.example", key_id="k1", app_id="7")
    account = service(world, credential, external_id=external_id)
    minted = {"access_token": "minted-1", "token": "minted-1", "expires_in": 3599, "token_type": "Bearer"}
    asking, a_while = threading.Barrier(8), threading.Event()

    def answer(form: dict[str, str]) -> Reply:
        a_while.wait(0.2)  # the others come meanwhile
        return reply(minted, 201 if credential is Credential.INSTALLATION else 200)

    provider.answer = answer
    coordinators = [coordinator_of(world, http, valkey_client if with_redis else None) for _ in range(8)]

    def refresh(coordinator: Coordinator) -> int:
        asking.wait()
        return coordinator.refresh(account, after_generation=1)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(refresh, coordinators)) == {2}
    assert len(provider.forms) == 1
    assert world.token(ROBOT) == "minted-1"


def test_no_assertion_is_shown_twice(make: Make, provider: PretendProvider) -> None:
    world, coordinator = make("salesforce")
    account = service(world, Credential.JWT_BEARER, external_id="ada")
    provider.answer = lambda form: reply({"access_token": "minted", "token_type": "Bearer"})
    for generation in (1, 2):
        coordinator.refresh(account, after_generation=generation)
    ids = {
        jwt.decode(form["assertion"], RSAKey.import_key(pem()), algorithms=["RS256"]).claims["jti"]
        for form in provider.forms
    }
    assert len(ids) == 2
    assert world.grant(ROBOT).expires_at is not None  # Salesforce names no lifetime


def test_an_assertion_that_is_refused_costs_no_account_and_is_shown_again_more_and_more_seldom(
    make: Make, provider: PretendProvider
) -> None:
    """The key may be wrong, or the clock, or the consent gone: the code is the same (RFC 7523 §3.1)."""
    world, coordinator = make("salesforce")
    account = service(world, Credential.JWT_BEARER, external_id="ada")
    provider.answer = lambda form: reply({"error": "invalid_grant"}, 400)
    for minutes in (1, 2, 4, 8, 8):
        with pytest.raises(Misconfigured, match="its key, at this machine's clock"):
            coordinator.refresh(account, after_generation=1)
        world.clock.advance(timedelta(minutes=minutes, seconds=-1))
        with pytest.raises(Unavailable):
            coordinator.refresh(account, after_generation=1)
        world.clock.advance(timedelta(seconds=1))
    assert (world.state(ROBOT), provider.presented.total()) == (AccountState.ACTIVE, 5)
    assert world.store.read(lambda connection: paused_reason(connection, "forge")) is None
    provider.answer = lambda form: reply({"access_token": "minted", "token_type": "Bearer"})
    assert coordinator.refresh(account, after_generation=1) == 2


@pytest.mark.parametrize(
    ("name", "credential"), [("github", Credential.INSTALLATION), ("salesforce", Credential.JWT_BEARER)]
)
def test_what_is_narrowed_to_nothing_gets_no_token_rather_than_one_without_a_bound(
    make: Make, provider: PretendProvider, name: str, credential: Credential
) -> None:
    world, coordinator = make(name, app_id="7")
    bound = ("issues:write",)
    account = service(world, credential, external_id="9001", scopes=bound, ceiling=bound)
    provider.answer = lambda form: reply({"access_token": "minted", "token": "minted", "token_type": "Bearer"}, 201)
    assert coordinator.refresh(account, after_generation=1) == 2
    told = world.account(ROBOT)
    world.store.write(lambda connection: rescope(connection, told, ("contents:read",)))
    with pytest.raises(Misconfigured, match="narrowed to no scope"):
        coordinator.refresh(account, after_generation=2)
    assert provider.presented.total() == 1


def test_a_signals_narrower_scope_within_the_bound_outlasts_the_next_tokens(
    make: Make, provider: PretendProvider
) -> None:
    world, coordinator = make("github", app_id="7")
    account = service(
        world, Credential.INSTALLATION, external_id="9001", scopes=("issues:write",), ceiling=("issues:write",)
    )
    told = world.account(ROBOT)
    world.store.write(lambda connection: rescope(connection, told, ("contents:read", "issues:read")))
    provider.answer = lambda form: reply({"token": "minted", "permissions": {"issues": "read"}}, 201)
    for generation in (1, 2):
        assert coordinator.refresh(account, after_generation=generation) == generation + 1
        assert world.grant(ROBOT).scopes == ("issues:read",)


def test_a_client_names_itself_by_a_key_where_the_connection_says_so(make: Make, provider: PretendProvider) -> None:
    world, coordinator = make("oauth2", client_auth="private_key_jwt")
    account = service(world, Credential.CLIENT_CREDENTIALS)
    assert coordinator.refresh(account, after_generation=1) == 2
    (form,) = provider.forms
    assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    claims = jwt.decode(form["client_assertion"], RSAKey.import_key(pem()), algorithms=["RS256"]).claims
    assert claims["aud"] == f"{provider.url}/token"
    assert "client_secret" not in form


def test_a_bot_token_that_rotates_is_renewed_before_its_first_use(make: Make, provider: PretendProvider) -> None:
    world, coordinator = make("slack")
    account = service(
        world, Credential.ROTATING, token=Secret("xoxe.xoxb-0"), refresh_token=Secret("xoxe-0"), external_id="T1"
    )
    assert not isinstance(world.examine(ROBOT), Leased)
    assert coordinator.refresh(account, after_generation=1) == 2
    assert provider.presented == {"xoxe-0": 1}
    assert (world.token(ROBOT), world.token(ROBOT, REFRESH)) == ("access-1", "refresh-1")
    assert isinstance(world.examine(ROBOT), Leased)


def test_a_rotation_of_a_bot_token_without_an_answer_is_unknown_as_a_persons_is(
    make: Make, provider: PretendProvider
) -> None:
    world, coordinator = make("slack")
    account = service(world, Credential.ROTATING, token=Secret("xoxe.xoxb-0"), refresh_token=Secret("xoxe-0"))
    provider.answer = lambda form: None
    with pytest.raises(ReauthRequired, match="no known outcome"):
        coordinator.refresh(account, after_generation=1)
    assert world.state(ROBOT) is AccountState.NEEDS_RECONNECT


def test_a_static_key_is_leased_as_a_key(make: Make) -> None:
    world, _ = make("linear")
    service(world, Credential.STATIC, token=Secret("lin_api_1"))
    leased = world.examine(ROBOT)
    assert isinstance(leased, Leased)
    assert leased.token_type == KEY


def test_a_key_that_replaces_another_stays_that_workspaces_for_signals_name_it_by_its_id(make: Make) -> None:
    world, _ = make("linear")
    service(world, Credential.STATIC, token=Secret("lin_api_1"), external_id="org-1")
    account = service(world, Credential.STATIC, token=Secret("lin_api_2"))
    assert world.store.read(lambda connection: get_account(connection, account)).external_id == "org-1"


def test_a_provider_is_asked_whose_a_static_key_is_with_the_key_as_it_wants_it(
    store: EngineStore, http: Client
) -> None:
    with server() as upstream:
        world = World(store=store, url=upstream.url, provider="linear").build()
        account = service(world, Credential.STATIC, token=Secret("lin_api_1"))
        upstream.say(200, {"data": {"viewer": {"id": "u-1", "displayName": "Robot"}}})
        found = ask_whose(store, world.vault, http, PROFILES, account, now=world.clock.now)
        assert (found.life, found.external and found.external.id) == (Life.ALIVE, "u-1")
        assert upstream.asked[-1].headers["authorization"] == "lin_api_1"


@pytest.mark.parametrize("scope", ROBOT.scopes, ids=lambda scope: scope.kind)
def test_a_provider_is_not_asked_whose_a_revoked_token_is(store: EngineStore, http: Client, scope: Scope) -> None:
    """What ends it there may still wait for calls in flight, so the token is stored yet."""
    with server() as upstream:
        world = World(store=store, url=upstream.url, provider="linear").build()
        account = service(world, Credential.STATIC, token=Secret("lin_api_1"))
        world.revoke(scope)
        found = ask_whose(store, world.vault, http, PROFILES, account, now=world.clock.now)
        assert (found.life, upstream.asked) == (Life.REVOKED, [])
        assert "was revoked since" in found.said
        upstream.say(200, {"data": {"viewer": {"id": "u-1", "displayName": "Robot"}}})
        again = service(world, Credential.STATIC, token=Secret("lin_api_2"))
        assert ask_whose(store, world.vault, http, PROFILES, again, now=world.clock.now).life is Life.ALIVE


def test_a_token_that_was_granted_is_shown_as_a_bearer_whatever_keys_are(make: Make) -> None:
    world, _ = make("linear")
    world.consent()
    leased = world.examine()
    assert isinstance(leased, Leased)
    assert authorization(world.owner, Secret("t"), token_type=leased.token_type) == ("Authorization", "Bearer t")


def test_a_token_that_is_no_bearers_is_kept_and_shown_to_nobody_until_an_operator_says_it_is_one(
    make: Make, provider: PretendProvider
) -> None:
    world, coordinator = make("oauth2")
    account = world.consent()
    provider.answer = lambda form: reply({"access_token": "a", "refresh_token": "r", "token_type": "DPoP"})
    assert coordinator.refresh(account, after_generation=1) == 2
    assert world.token(name=REFRESH) == "r"
    leased = world.examine()
    assert isinstance(leased, Leased)
    with pytest.raises(Misconfigured, match=r"of type 'DPoP'.*bearer_types=DPoP"):
        authorization(world.owner, Secret("a"), token_type=leased.token_type)
    said = replace(world.owner, config={"bearer_types": "dpop"})
    assert authorization(said, Secret("a"), token_type=leased.token_type) == ("Authorization", "Bearer a")


def test_a_type_with_a_long_name_is_shown_by_that_name_and_no_other_that_begins_so(make: Make) -> None:
    world, _ = make("oauth2")
    kept = kept_type("urn:example:a-long-token-type", ())
    assert len(kept) <= 32
    with pytest.raises(Misconfigured, match=r"begins with 'urn:example'.*bearer_types=TYPE"):
        authorization(world.owner, Secret("a"), token_type=kept)

    def shown(named: str) -> bool:
        said = replace(world.owner, config={"bearer_types": named})
        try:
            return authorization(said, Secret("a"), token_type=kept) == ("Authorization", "Bearer a")
        except Misconfigured:
            return False

    assert shown("urn:example:A-long-token-type")
    assert not shown("urn:example:a-long-other-type")


def test_an_installation_that_lacks_a_permission_waits_for_an_admin_and_pauses_nobody_else(
    make: Make, provider: PretendProvider
) -> None:
    world, coordinator = make("github", app_id="7")
    account = service(world, Credential.INSTALLATION, external_id="9001", scopes=("issues:write",))
    provider.answer = lambda form: reply({"message": "The permissions requested are not granted"}, 422)
    with pytest.raises(ReauthRequired, match="lacks a permission"):
        coordinator.refresh(account, after_generation=1)
    assert world.state(ROBOT) is AccountState.NEEDS_RECONNECT


@pytest.mark.parametrize(
    ("answer", "wait"),
    [
        (reply({"message": "You have exceeded a secondary rate limit"}, 403, retry_after="90"), 90),
        (reply({"message": "This installation has been suspended"}, 403), 60),
    ],
    ids=["limited", "suspended"],
)
def test_what_github_says_of_an_installation_that_passes_is_known(
    make: Make, provider: PretendProvider, answer: Reply, wait: int
) -> None:
    world, coordinator = make("github", app_id="7")
    account = service(world, Credential.INSTALLATION, external_id="9001", scopes=("issues:write",))
    provider.answer = lambda form: answer
    counted = partial(REGISTRY.get_sample_value, "aswhom_token_errors_unrecognised_total", {"provider": "github"})
    before = counted()
    with pytest.raises(Unavailable) as held:
        coordinator.refresh(account, after_generation=1)
    assert (held.value.retry_after, counted()) == (timedelta(seconds=wait), before)
    assert world.state(ROBOT) is AccountState.ACTIVE


def test_scopes_that_are_no_permissions_narrow_nothing() -> None:
    assert permissions(("read", "write")) is None
    assert permissions(()) is None
    assert permissions(("issues:write", "odd")) is None
    assert allowed(("read", "write"), {"issues": "read"}) == ("read", "write")
    assert allowed((), {"issues": "read"}) == ()
    nothing: tuple[Any, ...] = (None, {}, [], "issues")
    for unsaid in nothing:
        assert allowed(("issues:write",), unsaid) == ("issues:write",)
    assert allowed(("issues:write", "checks:read"), {"issues": "read", "checks": "admin"}) == ("checks:read",)
    assert allowed(("issues:write", "checks:read"), {"issues": ["write"], "checks": "odd"}) == ()
    assert permissions(("issues:write", "issues:read", "admin:read")) == {"issues": "write", "admin": "read"}


@ONLY_SQLITE
@pytest.mark.parametrize(
    ("credential", "given"),
    [
        (Credential.STATIC, {}),
        (Credential.JWT_BEARER, {"token": Secret("x")}),
        (Credential.ROTATING, {"token": Secret("x")}),
        (Credential.STATIC, {"token": Secret("x"), "refresh_token": Secret("y")}),
    ],
)
def test_a_credential_comes_with_what_it_needs_and_nothing_else(
    make: Make, credential: Credential, given: dict[str, Any]
) -> None:
    world, _ = make("slack")
    with pytest.raises(ValueError, match="credential comes with"):
        service(world, credential, **given)


@ONLY_SQLITE
@pytest.mark.parametrize("token", ["canary one", "canary\none", "canary\x00", "canaryé"])
@pytest.mark.parametrize("credential", [Credential.STATIC, Credential.ROTATING])
def test_a_pasted_token_that_no_header_can_hold_is_refused_and_not_quoted(
    make: Make, credential: Credential, token: str
) -> None:
    world, _ = make("slack")
    given: dict[str, Any] = (
        {"token": Secret(token)} if credential is Credential.STATIC else {"refresh_token": Secret(token)}
    )
    with pytest.raises(BadInput, match="white space") as error:
        service(world, credential, **({"token": Secret("x")} | given))
    assert "canary" not in str(error.value)


@ONLY_SQLITE
def test_a_client_secret_of_two_lines_is_refused_and_not_quoted(make: Make) -> None:
    world, _ = make("slack")
    with pytest.raises(BadInput, match="line break") as error:
        seal_secret(
            world.vault,
            world.owner,
            id="second",
            name=CLIENT_SECRET,
            secret=Secret("canary\nanother"),
            now=world.clock.now,
        )
    assert "canary" not in str(error.value)
