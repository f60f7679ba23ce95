"""A token for one repository is asked for with an action's scopes, and its answer is read by those alone."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Connection, Row, select

from identity.accounts.scopes import remember_stop
from identity.accounts.states import move_account
from identity.audit.tables import audit
from identity.breaker import Breaker
from identity.connections.registry import pause_connection, resume_connection
from identity.connections.secrets import PRIVATE_KEY, live_secrets, rotate_secret, seal_secret
from identity.errors import Misconfigured, Unavailable
from identity.http.client import Client, NotSent
from identity.minting.confined import Confiner
from identity.minting.confined_minting import ConfinedMinter, Confinement
from identity.minting.mints import prune_mints
from identity.minting.tables import mints
from identity.model import AccountKey, AccountState, Credential, LeaseRequest, Scope, ScopeKind
from identity.providers import PROFILES
from identity.providers.pace import Pace
from identity.secret import Secret
from identity.sql.store import Store
from identity.token_endpoint.endpoint import TokenEndpoint
from identity.token_endpoint.gate import HELD_BACK as AT_THE_GATE
from identity.token_endpoint.gate import Endpoint, Gate
from identity.token_endpoint.line import Waiter
from identity.withdrawals.tables import withdrawals
from tests.identity.keys import pem
from tests.identity.providers import PretendProvider, Reply, reply
from tests.identity.services import Make, service
from tests.identity.stores import EngineStore, FailingStore, StandsStill
from tests.identity.world import ANNA, ROBOT, World
from tests.ledgers import ONLY_SQLITE

T = TypeVar("T")
SECOND = timedelta(seconds=1)
READS = frozenset({"pull_requests:read"})
SECONDARY = {"message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}


def confined(world: World, http: Client) -> Secret | NotSent | None:
    """The token that reads pull requests, of an installation that may write them."""
    return asked(world, confiner_of(world, http), installed(world))


def installed(world: World) -> str:
    """The account of an installation that may write pull requests."""
    may = ("issues:write", "pull_requests:write")
    return service(world, Credential.INSTALLATION, external_id="9001", scopes=may)


def confiner_of(
    world: World, http: Client, *, gate: Gate | None = None, keeps: int = 10, store: Store | None = None, **more: Any
) -> Confiner:
    endpoint = TokenEndpoint(client=http, budget=timedelta(seconds=10), gate=gate or Gate(None))
    used = store or world.store
    more |= {"profiles": PROFILES, "ids": world.id, "clock": world.clock}
    minter = ConfinedMinter(store=used, vault=world.vault, endpoint=endpoint, **more)
    return Confiner(used, minter, clock=world.clock, keeps=keeps)


def asked(world: World, confiner: Confiner, account: str, *, repository: str = "acme/shop") -> Secret | NotSent | None:
    wanted = Confinement(account=account, generation=world.generation(ROBOT), repository=repository, scopes=READS)
    return confiner.token(wanted, send_before=float("inf"))


def add_key(world: World) -> None:
    """A second live one, as in the overlap of a rotation."""
    key = seal_secret(
        world.vault, world.owner, id="key-2", name=PRIVATE_KEY, secret=Secret(pem()), now=world.clock.now + SECOND
    )
    world.store.write(lambda c: rotate_secret(c, key, retire_at=None))


def test_a_refused_key_gives_way_to_the_other_live_one_and_a_pause_asks_nothing(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, _ = make("github", app_id="7")
    add_key(world)
    answers = [reply({"message": "no such key"}, 401), reply({"token": "ghs_1"}, 201)]
    provider.answer = lambda form: answers.pop(0)
    token = confined(world, http)
    assert isinstance(token, Secret), token
    assert [one.id for one in world.store.read(lambda c: live_secrets(c, "forge", PRIVATE_KEY))] == ["key-1", "key-2"]
    (row,) = world.store.read(
        lambda c: c.execute(select(audit).where(audit.c.kind == "connection.secret_refused")).all()
    )
    assert row.outcome == "401: the app's key or id was refused"
    assert row.detail == {"connection": "forge", "secret": "key-2", "spare": "key-1"}
    world.store.write(lambda c: pause_connection(c, "forge", reason="told so"))
    kept = confined(world, http)
    assert isinstance(kept, NotSent)
    assert "paused: told so" in kept.reason
    assert len(provider.forms) == 2


def test_a_key_refused_before_an_operator_acted_is_not_marked(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, _ = make("github", app_id="7")
    add_key(world)

    def mended_meanwhile(_: dict[str, str]) -> Reply:
        world.store.write(lambda c: resume_connection(c, "forge"))
        provider.answer = lambda form: reply({"token": "ghs_1"}, 201)
        return reply({"message": "no such key"}, 401)

    provider.answer = mended_meanwhile
    assert isinstance(confined(world, http), Secret)
    assert world.audited("connection.secret_refused") == 0
    assert [one.id for one in world.store.read(lambda c: live_secrets(c, "forge", PRIVATE_KEY))] == ["key-2", "key-1"]


def test_a_token_that_reads_what_the_account_may_write_is_used_and_held(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, _ = make("github", app_id="7")
    provider.answer = lambda form: reply({"token": "ghs_1", "permissions": {"pull_requests": "read"}}, 201)
    token = confined(world, http)
    assert isinstance(token, Secret), token
    assert token.reveal() == "ghs_1"
    assert world.store.read(lambda c: c.execute(select(withdrawals.c.state)).scalars().all()) == ["held"]


LIVES = {"expires_at": "2099-01-01T00:00:00Z"}


def ahead(
    world: World, confiner: Confiner, *, repository: str = "acme/shop", reads: bool = True, key: AccountKey = ROBOT
) -> None:
    """What is done before a step of *key* opens that reads pull requests."""
    request = LeaseRequest(
        tenant=key.tenant,
        connection=key.connection,
        agent="bot",
        principal=key.principal,
        accepted=world.number(),
        scopes=READS,
        now=world.clock.now,
    )
    confiner.mint_ahead(request, repository=repository, reads=reads)


def ready(make: Make, provider: PretendProvider) -> tuple[World, str]:
    """An installation whose own token lives, at a provider that mints."""
    world, coordinator = make("github", app_id="7")
    numbers = itertools.count()
    may = {"issues": "write", "pull_requests": "write"}
    provider.answer = lambda form: reply(LIVES | {"token": f"ghs_{next(numbers)}", "permissions": may}, 201)
    account = installed(world)
    coordinator.refresh(account, after_generation=world.generation(ROBOT))
    provider.bodies.clear()
    provider.answer = lambda form: reply(LIVES | {"token": f"ghs_{next(numbers)}"}, 201)
    return world, account


def minted(provider: PretendProvider) -> list[str]:
    """The repositories that tokens were asked for."""
    return [json.loads(body)["repositories"][0] for body in provider.bodies]


def test_a_token_is_minted_before_a_step_opens_and_is_what_the_step_then_uses(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, account = ready(make, provider)
    confiner = confiner_of(world, http)
    ahead(world, confiner)
    assert minted(provider) == ["shop"]
    assert isinstance(asked(world, confiner, account), Secret)
    ahead(world, confiner)
    assert minted(provider) == ["shop"]


def mints_of(world: World) -> list[Row[Any]]:
    """What the ledger knows of them, in their order."""
    return list(world.store.read(lambda c: c.execute(select(mints).order_by(mints.c.opened)).all()))


def test_the_ledger_knows_of_a_token_before_it_is_asked_for(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, account = ready(make, provider)
    known: list[Row[Any]] = []
    answer = provider.answer

    def look(form: dict[str, str]) -> Reply | None:
        known.extend(mints_of(world))
        return answer(form)

    provider.answer = look
    ahead(world, confiner_of(world, http))
    (mint,) = known
    assert provider.heads[-1]["x-aswhom-refresh"] == mint.id
    assert (mint.account_id, mint.generation, mint.repository) == (account, world.generation(ROBOT), "acme/shop")
    assert (mint.scopes, mint.outcome, mint.finished_at) == (sorted(READS), None, None)
    (ended,) = mints_of(world)
    assert (ended.id, ended.outcome, ended.finished_at) == (mint.id, "granted", world.clock.now)
    (held,) = world.store.read(lambda c: c.execute(select(withdrawals.c.id)).all())
    assert held.id == mint.id, "the token's own row has its mint's name"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (reply({"message": "no"}, 422), "422: it lacks a permission or repository"),
        (reply({}, 503), "status 503"),
    ],
)
def test_a_mint_that_brought_no_token_says_why(
    make: Make, provider: PretendProvider, http: Client, answer: Reply, outcome: str
) -> None:
    world, _ = ready(make, provider)
    provider.answer = lambda form: answer
    with suppress(Unavailable):
        ahead(world, confiner_of(world, http))
    assert [(mint.outcome, mint.finished_at) for mint in mints_of(world)] == [(outcome, world.clock.now)]


class Late:
    """A store at which something comes between the look at the lease and the request."""

    def __init__(self, inner: EngineStore, comes: Callable[[], object]) -> None:
        self._inner = inner
        self._comes = comes

    def write(self, fn: Callable[[Connection], T]) -> T:
        return self._inner.write(fn)

    def read(self, fn: Callable[[Connection], T]) -> T:
        found = self._inner.read(fn)
        self._comes()
        return found


REVOKED = "the account's grant moved or was revoked before its token was asked for"


@pytest.mark.parametrize("ends", ["revoked", "stopped", "suspended"])
def test_nothing_is_asked_for_after_a_revocation_that_came_while_the_step_was_on_its_way(
    make: Make, provider: PretendProvider, http: Client, ends: str
) -> None:
    world, account = ready(make, provider)
    scope = Scope(kind=ScopeKind.CONNECTION, key=ROBOT.connection)  # no row of the account's says it

    def end() -> None:
        match ends:
            case "revoked":
                world.revoke(scope)
            case "stopped":
                world.store.write(lambda c: remember_stop(c, scope, stopped=True))
            case "suspended":
                move = partial(move_account, to=AccountState.SUSPENDED, reason="told so", now=world.clock.now)
                world.store.write(lambda c: move(c, account))

    with pytest.raises(Unavailable, match=REVOKED):
        ahead(world, confiner_of(world, http, store=Late(world.store, end)))
    assert (minted(provider), mints_of(world)) == ([], [])


@pytest.mark.parametrize("before", ["ahead", "after the opening"])
def test_a_process_that_stands_still_after_its_row_asks_for_nothing(
    make: Make, provider: PretendProvider, http: Client, before: str
) -> None:
    """By then a revocation may have its receipt, on which no such request is."""
    world, account = ready(make, provider)
    store = StandsStill(world.store)
    confiner = confiner_of(world, http, store=store, monotonic=store.monotonic)
    if before == "ahead":
        with pytest.raises(Unavailable, match="too late to send"):
            ahead(world, confiner)
    else:
        assert isinstance(asked(world, confiner, account), NotSent)
    assert minted(provider) == []
    ((outcome, finished),) = [(mint.outcome, mint.finished_at) for mint in mints_of(world)]
    assert ("too late to send" in outcome, finished) == (True, world.clock.now)


def gated(world: World) -> tuple[Endpoint, Pace]:
    """What the gate is asked about."""
    return Endpoint.of(world.owner, Credential.INSTALLATION), PROFILES["github"].pace_of(Credential.INSTALLATION)


def test_what_may_not_be_asked_for_leaves_the_one_probe_of_a_failing_endpoint_to_others(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, _ = ready(make, provider)
    moments, (to, pace) = [0.0], gated(world)
    gate = Gate(None, breaker=Breaker(threshold=1, first=SECOND), monotonic=lambda: moments[-1])
    gate.failed(to, took=timedelta())
    moments.append(2.0)
    late = Late(world.store, lambda: world.revoke(Scope(kind=ScopeKind.CONNECTION, key=ROBOT.connection)))
    with pytest.raises(Unavailable, match=REVOKED):
        ahead(world, confiner_of(world, http, gate=gate, store=late))
    assert gate.enter(to, pace) is None


NOBODY = Waiter()
HELD_BACK = f"no token for acme/shop alone: {AT_THE_GATE}"


def test_where_another_was_let_through_first_nothing_is_sent_and_the_ledger_says_so(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, _ = ready(make, provider)

    class Crowded(Gate):
        """Others come between the look at it and the way in."""

        def look(self, endpoint: Endpoint, pace: Pace, *, keep: float = 0.0, who: Waiter = NOBODY) -> timedelta | None:
            found = super().look(endpoint, pace, keep=keep, who=who)
            for _ in range(pace.burst):
                super().enter(endpoint, pace)
            return found

    with pytest.raises(Unavailable, match=HELD_BACK):
        ahead(world, confiner_of(world, http, gate=Crowded(None, monotonic=lambda: 0.0)))
    assert minted(provider) == []
    assert [(mint.outcome, mint.finished_at) for mint in mints_of(world)] == [(HELD_BACK, world.clock.now)]


def test_an_endpoint_that_is_left_alone_already_leaves_no_row(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, _ = ready(make, provider)
    gate = Gate(None)
    gate.pause(gated(world)[0], timedelta(minutes=7))
    with pytest.raises(Unavailable, match=HELD_BACK):
        ahead(world, confiner_of(world, http, gate=gate))
    assert mints_of(world) == []


def refuse_the_key(world: World, provider: PretendProvider) -> None:
    """The provider takes none of the two that there are."""
    add_key(world)
    provider.answer = lambda form: reply({"message": "no such key"}, 401)


def test_where_the_other_key_must_wait_the_ledger_says_that_nothing_came_of_it(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, _ = ready(make, provider)
    refuse_the_key(world, provider)
    gate, (to, pace) = Gate(None, monotonic=lambda: 0.0), gated(world)
    for _ in range(pace.burst - 1):
        assert gate.enter(to, pace) is None
    with pytest.raises(Unavailable, match=HELD_BACK):
        ahead(world, confiner_of(world, http, gate=gate))
    assert minted(provider) == ["shop"]
    assert [(mint.outcome, mint.finished_at) for mint in mints_of(world)] == [(HELD_BACK, world.clock.now)]


def test_where_a_refused_key_cannot_be_noted_the_ledger_says_that_nothing_came_of_it(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, _ = ready(make, provider)
    refuse_the_key(world, provider)
    store = FailingStore(world.store, {2: "no turn"})  # the first is the mint's row
    with pytest.raises(Unavailable, match="no turn could be had"):
        ahead(world, confiner_of(world, http, store=store))
    assert [(mint.outcome, mint.finished_at) for mint in mints_of(world)] == [("no turn could be had", world.clock.now)]


def test_a_row_whose_commit_was_unknown_and_that_a_revocation_overtook_is_ended(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, _ = ready(make, provider)

    class Overtaken(FailingStore):
        """The first commit is made and not seen, and the revocation comes before it is made again."""

        def write(self, fn: Callable[[Connection], T]) -> T:
            try:
                return super().write(fn)
            finally:
                if self.writes == 1:
                    world.revoke(Scope(kind=ScopeKind.CONNECTION, key=ROBOT.connection))

    with pytest.raises(Unavailable, match=REVOKED):
        ahead(world, confiner_of(world, http, store=Overtaken(world.store, {1: "commit unseen"})))
    assert minted(provider) == []
    assert [(mint.outcome, mint.finished_at) for mint in mints_of(world)] == [(REVOKED, world.clock.now)]


def test_a_token_that_was_given_is_held_once_the_ledger_is_back(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, account = ready(make, provider)
    away = {2: "no turn", 3: "commit lost", 4: "no turn", 5: "commit unseen"}  # the first is its row
    confiner = confiner_of(world, http, store=FailingStore(world.store, away))
    ahead(world, confiner)
    assert isinstance(asked(world, confiner, account), Secret)
    assert minted(provider) == ["shop"]
    assert [mint.outcome for mint in mints_of(world)] == ["granted"]
    assert world.store.read(lambda c: c.execute(select(withdrawals.c.state)).scalars().all()) == ["held"]


def test_what_keeps_a_token_away_is_told_though_the_ledger_does_not_take_it_either(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, _ = ready(make, provider)
    store = FailingStore(world.store, {1: "no turn", 2: "commit lost", 3: "commit lost"})  # the row, and its end twice
    with pytest.raises(Unavailable, match="no turn could be had"):
        ahead(world, confiner_of(world, http, store=store))
    assert (minted(provider), store.writes) == ([], 3)


def test_mints_are_forgotten_like_the_ends_of_refreshes(make: Make, provider: PretendProvider, http: Client) -> None:
    world, _ = ready(make, provider)
    confiner, began = confiner_of(world, http), world.clock.now
    ahead(world, confiner)
    world.clock.advance(SECOND)
    ahead(world, confiner, repository="acme/infra")
    forget = partial(prune_mints, before=began + SECOND, limit=10)
    assert [world.store.write(forget) for _ in range(2)] == [1, 0]
    assert [mint.repository for mint in mints_of(world)] == ["acme/infra"]


def test_one_that_would_end_before_the_step_has_opened_is_minted_again(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, _ = ready(make, provider)
    confiner = confiner_of(world, http)
    provider.answer = lambda form: reply({"token": "ghs_1", "expires_in": 600}, 201)
    ahead(world, confiner)
    world.clock.advance(timedelta(minutes=6, seconds=59))
    ahead(world, confiner)
    assert len(minted(provider)) == 1
    world.clock.advance(SECOND)
    ahead(world, confiner)
    assert len(minted(provider)) == 2


def test_nothing_is_minted_ahead_for_what_would_not_open(make: Make, provider: PretendProvider, http: Client) -> None:
    world, _ = ready(make, provider)
    confiner = confiner_of(world, http)
    ahead(world, confiner, key=ANNA)  # never connected
    service(world, Credential.STATIC, key=ANNA, token=Secret("ghp_1"), scopes=tuple(READS))
    ahead(world, confiner, key=ANNA)  # cannot mint
    world.clock.advance(timedelta(days=40_000))
    ahead(world, confiner)  # its own token is renewed first
    world.clock.advance(timedelta(days=-40_000))
    world.revoke(Scope(kind=ScopeKind.ACCOUNT, key=str(ROBOT)))
    ahead(world, confiner)
    assert minted(provider) == []


def test_a_pause_holds_back_before_a_step_opens_and_not_where_a_token_lives(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, _ = ready(make, provider)
    confiner = confiner_of(world, http)
    ahead(world, confiner)
    world.store.write(lambda c: pause_connection(c, "forge", reason="told so"))
    ahead(world, confiner)
    with pytest.raises(Misconfigured, match="paused: told so"):
        ahead(world, confiner, repository="acme/infra")
    assert minted(provider) == ["shop"]


def test_an_endpoint_that_is_left_alone_holds_back_before_a_step_opens_and_says_for_how_long(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, _ = ready(make, provider)
    gate = Gate(None)
    confiner = confiner_of(world, http, gate=gate)
    ahead(world, confiner)
    gate.pause(Endpoint.of(world.owner, Credential.INSTALLATION), timedelta(minutes=7))
    ahead(world, confiner)  # that token lives
    waits = set()
    for _ in range(3):
        with pytest.raises(Unavailable, match="acme/infra alone: requests to its token endpoint are held back") as held:
            ahead(world, confiner, repository="acme/infra")
        waits.add(held.value.retry_after)
    assert timedelta(minutes=6) < min(waits)
    assert max(waits) < timedelta(minutes=7, seconds=6)
    assert max(waits) - min(waits) > timedelta(milliseconds=1), "they do not come back at one moment"


def test_of_many_that_come_at_once_none_opens_without_its_token(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, account = ready(make, provider)
    gate, to = Gate(None, monotonic=lambda: 0.0), Endpoint.of(world.owner, Credential.INSTALLATION)
    pace = PROFILES["github"].pace_of(Credential.INSTALLATION)
    for _ in range(pace.burst - 1):
        assert gate.enter(to, pace) is None
    confiner, opened = confiner_of(world, http, gate=gate), []
    for name in ("a", "b", "c"):
        with suppress(Unavailable):
            ahead(world, confiner, repository=f"acme/{name}")
            opened.append(asked(world, confiner, account, repository=f"acme/{name}"))
    assert [type(one) for one in opened] == [Secret]


@ONLY_SQLITE
@pytest.mark.parametrize(
    ("answer", "why", "least"),
    [
        (reply({}, 503), "status 503", 5),
        (reply({}, 429, retry_after="90"), "status 429", 90),
        (reply({}, 504), "status 504", 60),
        (None, "", 60),
        (reply(SECONDARY, 403, retry_after="90"), "status 403", 90),
        (reply(SECONDARY, 403, x_ratelimit_remaining="4999", x_ratelimit_reset="4070908800"), "status 403", 60),
        (reply({"message": "This installation has been suspended"}, 403), "status 403: .* is suspended", 60),
    ],
    ids=["down", "limited", "gateway", "silent", "by a secondary limit", "which names no time", "suspended"],
)
def test_what_the_endpoint_does_not_do_now_is_waited_for_before_a_step_opens(
    make: Make, provider: PretendProvider, http: Client, answer: Reply | None, why: str, least: int
) -> None:
    world, _ = ready(make, provider)
    provider.answer = lambda form: answer
    with pytest.raises(Unavailable, match=f"no token for acme/shop alone: .*{why}") as held:
        ahead(world, confiner_of(world, http))
    assert timedelta() <= held.value.retry_after - least * SECOND <= 5 * SECOND


def test_what_is_out_of_reach_is_not_asked_for_again_by_reads_for_five_minutes(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, account = ready(make, provider)
    gate = Gate(None)
    confiner = confiner_of(world, http, gate=gate)
    provider.answer = lambda form: reply({"message": "no"}, 422)
    expected = NotSent(reason="no token for acme/shop alone: 422: it lacks a permission or repository", final=True)
    ahead(world, confiner)
    assert asked(world, confiner, account) == expected
    world.clock.advance(timedelta(minutes=4, seconds=59))
    ahead(world, confiner, repository="Acme/Shop")
    assert asked(world, confiner, account) == expected
    assert minted(provider) == ["shop"]
    world.clock.advance(SECOND)
    ahead(world, confiner)
    assert minted(provider) == ["shop"] * 2
    gate.pause(Endpoint.of(world.owner, Credential.INSTALLATION), timedelta(minutes=7))
    ahead(world, confiner)
    with pytest.raises(Unavailable):
        ahead(world, confiner, reads=False)  # it may have been given since, and this would fail of it


def test_what_was_out_of_reach_and_was_given_since_is_used(make: Make, provider: PretendProvider, http: Client) -> None:
    world, account = ready(make, provider)
    confiner, mints = confiner_of(world, http), provider.answer
    provider.answer = lambda form: reply({"message": "no"}, 422)
    ahead(world, confiner, reads=False)
    assert isinstance(asked(world, confiner, account), NotSent)
    provider.answer = mints
    ahead(world, confiner, reads=False)
    assert isinstance(asked(world, confiner, account), Secret)


def test_no_more_refusals_are_remembered_than_tokens_are_kept(
    make: Make, provider: PretendProvider, http: Client
) -> None:
    world, _ = ready(make, provider)
    confiner = confiner_of(world, http, keeps=2)
    provider.answer = lambda form: reply({"message": "no"}, 422)
    for name in ("a", "b", "c", "b", "c", "a"):
        ahead(world, confiner, repository=f"acme/{name}")
    assert minted(provider) == ["a", "b", "c", "a"]


@ONLY_SQLITE
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


@ONLY_SQLITE
@pytest.mark.parametrize("status", [418, 403])
def test_an_answer_that_nobody_knows_is_counted_said_and_left_to_the_opened_step(
    make: Make, provider: PretendProvider, http: Client, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """Waited for, it would be waited for without end."""
    world, account = ready(make, provider)
    confiner = confiner_of(world, http)
    provider.answer = lambda form: reply({"message": "what?"}, status)
    counted = partial(REGISTRY.get_sample_value, "aswhom_token_errors_unrecognised_total", {"provider": "github"})
    before = counted() or 0
    ahead(world, confiner)
    reason = f"no token for acme/shop alone: status {status} without an error code"
    assert asked(world, confiner, account) == NotSent(reason=reason)
    assert (counted() or 0) - before == 1
    assert [one.getMessage() for one in caplog.records] == [reason]
    assert minted(provider) == ["shop"]


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


def answers_for(*names: object) -> Reply:
    """A token, and the repositories that it is said to be for."""
    return reply(LIVES | {"token": "ghs_1", "repositories": [{"id": 1, "full_name": name} for name in names]}, 201)


@ONLY_SQLITE
@pytest.mark.parametrize(
    "names",
    [("acme/shop",), ("other/shop", "acme/shop"), ("acme/shop", None), ("other/shop", 7), (None,), ("",)],
    ids=["another", "more", "another and nameless", "it and nameless", "nameless", "empty"],
)
def test_a_token_that_is_not_said_to_be_for_the_one_repository_alone_is_held_and_used_for_nothing(
    make: Make, provider: PretendProvider, http: Client, names: tuple[str, ...]
) -> None:
    """GitHub is asked by the name alone, and the installation has one of that name."""
    world, account = ready(make, provider)
    confiner = confiner_of(world, http)
    provider.answer = lambda form: answers_for(*names)
    ahead(world, confiner, repository="other/shop")
    why = "no token for other/shop alone: the one that was given is not for it alone"
    assert asked(world, confiner, account, repository="Other/Shop") == NotSent(reason=why, final=True)
    assert minted(provider) == ["shop"], "it is remembered, as what is out of reach is"
    (mint,) = mints_of(world)
    assert (mint.outcome, mint.finished_at) == ("granted, but not for that repository alone", world.clock.now)
    assert world.store.read(lambda c: c.execute(select(withdrawals.c.id, withdrawals.c.state)).all()) == [
        (mint.id, "held")
    ], "a revocation ends it too"


@ONLY_SQLITE
@pytest.mark.parametrize("names", [("ACME/Shop",), ()], ids=["as written", "none"])
def test_a_token_whose_repository_is_the_one_or_is_not_said_is_used(
    make: Make, provider: PretendProvider, http: Client, names: tuple[object, ...]
) -> None:
    world, account = ready(make, provider)
    provider.answer = lambda form: answers_for(*names)
    assert isinstance(asked(world, confiner_of(world, http), account), Secret)


def test_the_oldest_token_gives_way_where_no_more_are_kept(make: Make, provider: PretendProvider, http: Client) -> None:
    world, _ = make("github", app_id="7")
    confiner, account = confiner_of(world, http, keeps=2), installed(world)
    provider.answer = lambda form: reply(LIVES | {"token": "ghs_1"}, 201)
    for name in ("a", "b", "c", "b", "c", "a"):
        assert isinstance(asked(world, confiner, account, repository=f"acme/{name}"), Secret)
    assert [json.loads(body)["repositories"] for body in provider.bodies] == [["a"], ["b"], ["c"], ["a"]]
