"""The processes themselves: many at once, connections kept, a prompt end, and a world of their own."""

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.sandbox.world import make_world
from tests.sandbox.driver import SERVICES, Sandbox, address, running, start
from tests.servers.process import end, free_port
from tests.waiting import PATIENCE, eventually


def a_world(**options: Any) -> dict[str, object]:
    return make_world(
        ports={service: free_port() for service in SERVICES},
        hooks={"github": "http://127.0.0.1:1/g", "slack": "http://127.0.0.1:1/s"},
        callbacks={"github": "http://127.0.0.1:1/cg", "linear": "http://127.0.0.1:1/cl"},
        now=datetime.now(UTC),
        **options,
    )


def test_sixty_four_at_once_are_all_answered(sandbox: Sandbox) -> None:
    token, since = sandbox.connect("github", "ada")["access_token"], len(sandbox.read("github", "log"))
    sandbox.order("github", "faults", endpoint="get_user", mode="delay", seconds=1, times=64)
    began = time.monotonic()
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda _: sandbox.github("GET", "/user", token).status_code, range(64)))
    assert answers == [200] * 64
    assert time.monotonic() - began < 32  # one after the other they take 64
    rows = sandbox.read("github", f"log?since={since}")
    assert [row["seq"] for row in rows] == list(range(since + 1, since + 65))


def test_fifty_refreshes_of_one_token_rotate_it_once(sandbox: Sandbox) -> None:
    token = sandbox.connect("linear", "ada")["refresh_token"]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: sandbox.refresh("linear", token).status_code, range(50)))
    assert sorted(answers) == [200] + [400] * 49


def test_connections_are_kept(sandbox: Sandbox) -> None:
    with httpx.Client() as one:
        one.get(sandbox.url("slack", "/api/auth.test"))
        (connection,) = one._transport._pool.connections  # type: ignore[attr-defined]
        one.get(sandbox.url("slack", "/api/auth.test"))
        assert one._transport._pool.connections == [connection]  # type: ignore[attr-defined]
        assert connection.is_idle()


def test_a_terminated_process_exits_with_0_though_an_answer_is_due(tmp_path: Path) -> None:
    world = a_world()
    (tmp_path / "world.json").write_text(json.dumps(world))
    process = start(tmp_path, "slack")
    with httpx.Client(base_url=address(process), timeout=PATIENCE) as client:
        client.post("/_sandbox/faults", json={"mode": "delay", "seconds": 60})
        with pytest.raises(httpx.ReadTimeout):
            client.get("/api/auth.test", timeout=httpx.Timeout(PATIENCE, read=0.2))
        process.send_signal(signal.SIGTERM)
        end(process)
    assert process.returncode == 0


def test_tokens_expire_by_the_servers_clock(tmp_path: Path) -> None:
    with running(tmp_path, access_seconds=1) as sandbox:
        tokens = sandbox.connect("github", "ada")
        assert tokens["expires_in"] == 1
        eventually(lambda: sandbox.github("GET", "/user", tokens["access_token"]).status_code == 401, "it has expired")
        assert "access_token" in sandbox.refresh("github", tokens["refresh_token"]).json()


def test_a_deleted_installation_is_gone(tmp_path: Path) -> None:
    with running(tmp_path) as sandbox:
        token = sandbox.installation_token(9001)
        sandbox.order("github", "installations/9001/delete")
        assert json.loads(sandbox.receiver.take()[0][1])["action"] == "deleted"
        assert sandbox.github("GET", "/repos/acme/shop", token).status_code == 401
        minted = sandbox.github("POST", "/app/installations/9001/access_tokens", sandbox.app_jwt())
        assert minted.status_code == 404


def test_a_world_is_json_and_no_two_share_a_secret() -> None:
    one, other = (json.dumps(a_world()) for _ in range(2))
    assert json.loads(one)["github"]["installations"][0]["repositories"] == ["acme/shop", "acme/infra"]
    secrets = {word for word in one.split('"') if len(word) >= 24 and " " not in word and "://" not in word}
    assert not [secret for secret in secrets if secret in other]
