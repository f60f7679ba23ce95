"""Refreshes in real processes that are killed, stopped and raced, against a certified server that detects reuse."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from identity.accounts.grants import ACCESS, REFRESH
from identity.connect.flow import Connected
from identity.errors import ReauthRequired
from identity.http.client import Client
from identity.model import AccountKey, AccountState, PrincipalKind
from identity.principals import ensure_principal
from identity.refresh.tables import refresh_intents
from identity.tables import provider_connections
from pipeline.db.database import Database
from tests.identity.peer import Peer
from tests.identity.world import World
from tests.ledgers import open_ledger
from tests.servers.oidc import Oidc
from tests.servers.oidc import oidc as run_oidc
from tests.servers.process import Process, end, start_python
from tests.servers.proxy import Mode, proxy
from tests.servers.valkey import Valkey

#: Every named point of a refresh, what the next process gets, and how often the provider was shown the token.
POINTS = {
    "after_lock": ("2", 1),
    "before_intent": ("2", 1),
    "before_send": ("ReauthRequired", 0),  # from here on nobody can tell
    "after_send": ("ReauthRequired", 1),
    "after_answer_stored": ("2", 1),
    "after_commit": ("2", 1),
}


class Refreshers:
    """The parent of the processes, over its pipes."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def order(self, **what: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(what), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        assert line, "the refreshers ended"
        answer: dict[str, Any] = json.loads(line)
        return answer


pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.parametrize(
        "ledger_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
    ),
]


Start = Callable[..., AbstractContextManager[Refreshers]]


@pytest.fixture
def refreshers(ledger_url: str, tmp_path: Path) -> Start:
    """Starts the parent of so many processes, with a Valkey for their locks or None."""

    @contextmanager
    def start(valkey: Valkey | None, processes: int = 1) -> Iterator[Refreshers]:
        asked = {"database": ledger_url, "redis": valkey.url if valkey else None, "processes": processes}
        process = start_python(
            "tests.faults.refresher",
            json.dumps(asked),
            log=tmp_path / "refreshers.log",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            warm=[
                "identity.refresh.coordinator",
                "identity.refresh.lock",
                "pipeline.db.sqlite",
                "tests.identity.peer",
            ],
        )
        try:
            yield Refreshers(process)
        finally:
            end(process, signal.SIGKILL)

    return start


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    opened = open_ledger(ledger_url)
    yield opened
    opened.close()


@pytest.fixture
def world(database: Database) -> World:
    return World(store=database).build()  # type: ignore[arg-type]  # any Store serves


@pytest.fixture
def peer(world: World, oidc: Oidc, http: Client) -> Peer:
    return Peer(world, oidc, http)


def grant(peer: Peer, principal: str) -> tuple[AccountKey, str, str]:
    """A person's grant at the peer: key, account and refresh token."""
    world, key = peer.world, AccountKey(tenant="acme", connection="peer", principal=principal)
    kind, now = PrincipalKind.USER, world.clock.now
    world.store.write(lambda c: ensure_principal(c, id=principal, tenant="acme", kind=kind, name=principal, now=now))
    tokens = peer.oidc.grant(login=principal)
    provider, world.provider = world.provider, "peer"
    world.try_consent(key, tokens=(tokens["access_token"], tokens["refresh_token"]))
    world.provider = provider
    return key, world.account(key).id, tokens["refresh_token"]


def named_points() -> set[str]:
    """Wherever the code of a refresh says that it got so far."""
    modules = Path(str(files("identity"))).rglob("*.py")
    named = {point for module in modules for point in re.findall(r'reached\("(\w+)"\)', module.read_text())}
    return {point for point in named if "withdrawal" not in point}  # those are of ending a token


def shown(peer: Peer, token: str) -> list[str]:
    return [each.outcome for each in peer.oidc.log(token)]


def test_a_process_killed_at_any_point_of_a_refresh_neither_presents_twice_nor_loses_an_answer(
    peer: Peer, refreshers: Start
) -> None:
    assert POINTS.keys() == named_points()
    with refreshers(None) as processes:
        for point, (end, times) in POINTS.items():
            key, account, token = grant(peer, f"p-{point}")
            killed = processes.order(account=account, generation=1, kill=point, patient=True)
            assert killed == {"signal": 9}, point
            peer.world.store.write(lambda c: c.execute(update(refresh_intents).values(settled_by=datetime.now(UTC))))
            assert processes.order(account=account, generation=1, patient=True) == {"said": end}, point
            assert shown(peer, token) == ["ok"] * times, point
            once_more = processes.order(account=account, generation=1, patient=True)
            assert once_more == {"said": end}, f"{point}, once more"
            assert len(shown(peer, token)) == times, point
            if end == "2":
                assert peer.oidc.is_active(peer.world.token(key, REFRESH)), point
                assert peer.world.state(key) is AccountState.ACTIVE
            else:
                assert peer.world.state(key) is AccountState.NEEDS_RECONNECT


def test_a_dead_processes_lock_is_waited_out_and_its_refresh_settled(
    peer: Peer, refreshers: Start, own_valkey: Valkey
) -> None:
    key, account, token = grant(peer, "anna")
    with refreshers(own_valkey) as processes:
        assert processes.order(account=account, generation=1, kill="after_answer_stored") == {"signal": 9}
        assert processes.order(account=account, generation=1) == {"said": "2"}
    assert shown(peer, token) == ["ok"]
    assert peer.oidc.is_active(peer.world.token(key, ACCESS))


@pytest.mark.parametrize("point", ["before_send", "after_send"])
def test_an_owner_stopped_past_its_lock_and_continued_destroys_nothing(
    peer: Peer, refreshers: Start, own_valkey: Valkey, point: str
) -> None:
    """Others have its lock by then, and have settled its intent; what it does when it wakes changes nothing twice."""
    key, account, token = grant(peer, "anna")
    with refreshers(own_valkey) as processes:
        stopped = processes.order(account=account, generation=1, stop=point)["stopped"]
        other = processes.order(account=account, generation=1)  # waits for the lock, then for `settled_by`
        assert other == {"said": "ReauthRequired"}
        late = processes.order(**{"continue": stopped})
        if point == "before_send":  # `send_before` has passed: it does not send, and says so
            assert shown(peer, token) == []
            assert peer.oidc.is_active(token)
            assert peer.world.state(key) is AccountState.ACTIVE
            while (again := processes.order(account=account, generation=1)) == {"said": "Unavailable"}:
                """It was told to come back in two seconds."""
            assert again == {"said": "2"}
        else:  # the answer was in its hands: it is the truth, and brings the account back
            assert late == {"said": "2"}
            assert peer.world.state(key) is AccountState.ACTIVE
        assert shown(peer, token) == ["ok"]
        assert peer.oidc.is_active(peer.world.token(key, REFRESH))


@pytest.mark.parametrize("loss", ["killed", "emptied"])
def test_a_redis_lost_in_the_middle_of_a_refresh_doubles_nothing(
    peer: Peer, refreshers: Start, own_valkey: Valkey, loss: str
) -> None:
    key, account, token = grant(peer, "anna")
    with refreshers(own_valkey) as processes:
        what = {"account": account, "generation": 1, "patient": True}
        stopped = processes.order(**what, stop="after_send")["stopped"]
        if loss == "killed":
            own_valkey.kill()
        else:
            own_valkey.flush()
        others = [processes.order(**what, stop="after_lock")["stopped"] for _ in range(3)]
        first = processes.order(**{"continue": stopped})
        assert first == {"said": "2"}
        assert [processes.order(**{"continue": each}) for each in others] == [{"said": "2"}] * 3
    assert shown(peer, token) == ["ok"]
    assert peer.oidc.is_active(peer.world.token(key, REFRESH))


def test_a_response_lost_after_the_rotation_is_never_asked_for_again(peer: Peer) -> None:
    key, account, token = grant(peer, "anna")
    with proxy("127.0.0.1", peer.oidc.port) as between:
        through = update(provider_connections).where(provider_connections.c.id == "peer")
        peer.world.store.write(lambda c: c.execute(through.values(token_url=f"{between.url}/token")).rowcount)
        between.set(Mode.CUT_RESPONSE)
        with pytest.raises(ReauthRequired, match="no known outcome"):
            peer.coordinator().refresh(account, after_generation=1)
        between.set(Mode.PASS)
        with pytest.raises(ReauthRequired):
            peer.coordinator().refresh(account, after_generation=1)
    assert shown(peer, token) == ["ok"]
    assert peer.world.state(key) is AccountState.NEEDS_RECONNECT


def race(peer: Peer, refreshers: Start, valkey: Valkey | None, *, processes: int, rounds: int) -> None:
    """Every round one presentation, and a grant that lives."""
    key, account, _ = grant(peer, "anna")
    shown_before = len(peer.oidc.log())
    with refreshers(valkey, processes) as forks:
        ran = forks.order(account=account, rounds=rounds)
    presented = [each.outcome for each in peer.oidc.log()[shown_before:]]
    count = select(func.sum(refresh_intents.c.presented))
    counted = peer.world.store.read(lambda c: c.execute(count).scalar_one())
    print(f"{processes} processes, {rounds} rounds: {len(presented)} presentations, {counted} counted")
    assert lives(peer, key), "the grant was destroyed"  # before anything else: this is what all of it is for
    assert presented == ["ok"] * rounds
    assert counted == rounds
    assert ran == {"rounds": [[turn + 2] for turn in range(rounds)], "codes": [0] * processes}
    assert peer.oidc.is_active(peer.world.token(key, ACCESS))


def lives(peer: Peer, key: AccountKey) -> bool:
    """Whether the server still takes what is stored of a grant."""
    stored = peer.world.grant(key).refresh_sealed
    return stored is not None and peer.oidc.is_active(peer.world.token(key, REFRESH))


@pytest.mark.parametrize("with_redis", [True, False], ids=["with redis", "without redis"])
def test_eight_processes_rotate_a_grant_once_a_round(
    peer: Peer, refreshers: Start, own_valkey: Valkey, with_redis: bool
) -> None:
    race(peer, refreshers, own_valkey if with_redis else None, processes=8, rounds=4)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_sixty_four_processes_rotate_a_grant_once_a_round_for_a_hundred_rounds(
    peer: Peer, refreshers: Start, own_valkey: Valkey
) -> None:
    race(peer, refreshers, own_valkey, processes=64, rounds=100)


def test_a_server_whose_store_is_not_atomic_is_asked_once_all_the_same(
    world: World, http: Client, refreshers: Start
) -> None:
    """It lets two uses of one token both succeed, in two chains of which one is lost: it would tell us of nothing."""
    with run_oidc(store_latency=timedelta(milliseconds=10)) as slow:
        race(Peer(world, slow, http), refreshers, None, processes=6, rounds=3)


def test_a_person_connects_again_after_an_unknown_outcome(peer: Peer, refreshers: Start) -> None:
    connected = peer.connect()
    assert isinstance(connected, Connected)
    with refreshers(None) as processes:
        processes.order(account=connected.account, generation=1, kill="after_send")
        assert processes.order(account=connected.account, generation=1) == {"said": "ReauthRequired"}
        again = peer.connect()
        assert isinstance(again, Connected)
        assert processes.order(account=again.account, generation=again.generation) == {"said": "3"}
