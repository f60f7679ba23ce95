"""Two installations on one Redis, under one prefix, are told of it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from subprocess import Popen

import pytest
from redis import Redis
from redis.exceptions import RedisError

from deploy.process import of_its_tables, open_runtime
from deploy.settings import Settings, load
from deploy.shared_redis import keeping_the_mark, open_redis, tell_of_another
from deploy.valkey import prepare, redis_url, server_path, socket_path
from identity.errors import Misconfigured
from tests.deploy.conftest import Cli, told
from tests.servers.valkey import Valkey
from tests.waiting import eventually


def start(settings: Settings) -> None:
    runtime = of_its_tables(open_runtime(settings))
    try:
        tell_of_another(settings, runtime)
    finally:
        runtime.close()


@pytest.fixture
def private_valkey(cli: Cli) -> Iterator[Redis]:
    """The server that `aswhom up` would start."""
    process = Popen([server_path(), prepare(cli.data_dir)])
    with open_redis(redis_url(socket_path(cli.data_dir))) as client:
        eventually(lambda: answers(client))
        yield client
    process.terminate()
    process.wait()


def answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


@pytest.fixture
def other(tmp_path: Path) -> Cli:
    other = Cli(tmp_path / "other")
    other("init")
    return other


def test_the_second_installation_on_a_redis_says_so_at_its_start_and_to_the_doctor(
    cli: Cli, other: Cli, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ASWHOM_BROKER_URL", own_valkey.url)
    start(load(data_dir=cli.data_dir))
    start(load(data_dir=cli.data_dir))
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    start(load(data_dir=other.data_dir))
    assert "another installation uses the same Redis under aswhom:" in caplog.text
    assert "ASWHOM_KEY_PREFIX of its own" in caplog.text
    caplog.clear()
    start(load(data_dir=other.data_dir, key_prefix="staging:"))
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    (_, (state, says)) = told(other, "broker")
    assert (state, "another installation uses the same Redis" in says) == ("wrong", True)
    assert [state for state, _ in told(cli, "broker")] == ["ok"]
    monkeypatch.setenv("ASWHOM_KEY_PREFIX", "staging:")
    assert [state for state, _ in told(other, "broker")] == ["ok"]


def test_an_installation_knows_the_mark_that_it_left_before_its_key_was_rotated(
    cli: Cli, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ASWHOM_BROKER_URL", own_valkey.url)
    start(load(data_dir=cli.data_dir))
    cli.json("keys", "rotate-signing", "--yes")
    start(load(data_dir=cli.data_dir))
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert [state for state, _ in told(cli, "broker")] == ["ok"]


def test_a_drills_copy_on_the_redis_of_its_original_says_so_and_the_original_does_not(
    cli: Cli, tmp_path: Path, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    drill = Cli(tmp_path / "drill")
    shutil.copytree(cli.data_dir, drill.data_dir)
    drill.json("db", "restored", "--why", "a drill", "--yes")
    monkeypatch.setenv("ASWHOM_BROKER_URL", own_valkey.url)
    start(load(data_dir=cli.data_dir))
    start(load(data_dir=drill.data_dir))
    (_, (state, says)) = told(drill, "broker")
    assert (state, "or the one that this is a restored copy of" in says) == ("wrong", True)
    assert [state for state, _ in told(cli, "broker")] == ["ok"]


def test_a_ledger_restored_in_place_takes_over_the_mark_in_its_private_valkey(
    cli: Cli, private_valkey: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    start(load(data_dir=cli.data_dir))
    before = private_valkey.get("aswhom:installation")
    cli.json("db", "restored", "--why", "the disk died", "--yes")
    settings = load(data_dir=cli.data_dir)
    start(settings)
    assert private_valkey.get("aswhom:installation") not in (None, before)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert [state for state, _ in told(cli, "broker")] == ["ok"]
    private_valkey.set("aswhom:installation", "of a process with another ledger")
    with closing(open_runtime(settings)) as runtime, pytest.raises(Misconfigured, match="another installation"):
        keeping_the_mark(settings, runtime).run()


def test_the_mark_is_kept_by_housekeeping_and_goes_with_its_installation(
    cli: Cli, other: Cli, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASWHOM_BROKER_URL", own_valkey.url)
    client = own_valkey.client()
    for made in (cli, other):
        settings = load(data_dir=made.data_dir)
        with closing(open_runtime(settings)) as runtime:
            duty = keeping_the_mark(settings, runtime)
            if made is other:
                with pytest.raises(Misconfigured, match="another installation uses the same Redis"):
                    duty.run()
                client.delete("aswhom:installation")  # as its time does
            duty.run()
            client.expire("aswhom:installation", 5)
            duty.run()
            assert client.ttl("aswhom:installation") > 500


def test_a_redis_that_is_away_keeps_nobody_from_starting(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASWHOM_BROKER_URL", "redis://127.0.0.1:1/0")
    start(load(data_dir=cli.data_dir))
