"""Compose gives each container little, and passwords to no command line; its back-up is what a restore needs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import redis

from tests.deploy.shipped import COMPOSE, PROCESSES
from tests.docs.pages import ROOT
from tests.servers.process import end, free_port, start
from tests.waiting import eventually

SERVICES = COMPOSE["services"]
BACK_UP = ROOT / "deploy/compose/back-up"


def test_no_log_grows_for_ever() -> None:
    assert {name for name, one in SERVICES.items() if one.get("logging") != COMPOSE["x-logging"]} == set()
    assert COMPOSE["x-logging"]["options"].keys() == {"max-size", "max-file"}


def test_nothing_writes_into_its_image_or_gains_a_right_but_what_postgresqls_start_needs() -> None:
    assert all(one["cap_drop"] == ["ALL"] for one in SERVICES.values())
    assert all(one["security_opt"] == ["no-new-privileges:true"] for one in SERVICES.values())
    assert {name for name, one in SERVICES.items() if not one.get("read_only")} == {"postgres"}
    assert {name for name, one in SERVICES.items() if "cap_add" in one} == {"postgres"}


def test_whoever_asks_grafana_for_an_address_reaches_neither_the_ledger_nor_the_web() -> None:
    on = {name: set(one["networks"]) for name, one in SERVICES.items()}
    assert on["postgres"] == on["valkey"] == {"data"}
    assert [name for name in on if "watch" in on[name]] == ["prometheus", "grafana"]
    assert on["grafana"] == {"watch"}
    assert all(on[name] == {"default", "data"} for name in [*PROCESSES, "setup"])
    assert on["prometheus"] & on["web"]
    assert COMPOSE["networks"]["data"] == {"internal": True}


def test_grafanas_first_password_is_no_default_and_outlives_its_container() -> None:
    assert SERVICES["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_PASSWORD:?")
    assert "grafana:/var/lib/grafana" in SERVICES["grafana"]["volumes"]
    kept = {mount.split(":")[0] for one in SERVICES.values() for mount in one.get("volumes", ()) if mount[0] != "."}
    assert kept == COMPOSE["volumes"].keys()


def test_every_image_but_ours_goes_by_a_version() -> None:
    """PostgreSQL's by its major and Debian: its minors mend and change nothing."""
    for name, one in SERVICES.items():
        if one["image"] != "aswhom":
            tag = one["image"].partition(":")[2]
            assert tag == "17-trixie" if name == "postgres" else re.fullmatch(r"v?\d+\.\d+\.\d+", tag), name


def test_valkeys_password_is_no_word_of_its_command_line(tmp_path: Path) -> None:
    """Run with another Valkey than the image's, by the shell that is here."""
    from deploy.valkey import server_path

    port = free_port()
    shell, flag, script = SERVICES["valkey"]["command"]
    script = script.replace("$$", "$").replace("--dir /data", f"--dir {tmp_path} --port {port}")
    environment = {"VALKEY_PASSWORD": "hunter2hunter2", "PATH": f"{server_path().parent}:{os.environ['PATH']}"}
    started = start([shell, flag, script], log=tmp_path / "log", environment=environment)
    try:
        with redis.Redis(port=port, password="hunter2hunter2", socket_timeout=5) as client:

            def answers() -> bool:
                try:
                    return bool(client.ping())
                except redis.ConnectionError:
                    return False

            eventually(answers, log=tmp_path / "log")
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("appendonly") == {"appendonly": "yes"}
        with redis.Redis(port=port, socket_timeout=5) as stranger, pytest.raises(redis.RedisError):
            stranger.get("x")
        assert b"hunter2" not in Path(f"/proc/{started.pid}/cmdline").read_bytes()
        end(started)
        assert started.returncode == 0
    finally:
        end(started)


DOCKER = """#!/bin/sh
# Stands in for Docker: says what it was asked, and answers as each command does.
printf '%s\\n' "$*" >> "$TOLD"
case "$*" in
    *pg_dump*) printf 'PGDMP of the ledger' ;;
    *pg_restore*) test "$(cat)" = "$WHOLE" ;;
esac
"""


def _backed_up(tmp_path: Path, *arguments: str, whole: str = "PGDMP of the ledger") -> tuple[int, list[str]]:
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "docker").write_text(DOCKER)
    (tools / "install").write_text('#!/bin/sh\nfor last; do :; done\nmkdir "$last"\n')  # who tests may not be root
    for tool in tools.iterdir():
        tool.chmod(0o755)
    told = tmp_path / "told"
    environment = {"PATH": f"{tools}:{os.environ['PATH']}", "TOLD": str(told), "WHOLE": whole}
    code = subprocess.run([BACK_UP, tmp_path / "into", *arguments], env=environment, check=False).returncode
    return code, told.read_text().splitlines()


def test_a_back_up_is_a_whole_dump_and_what_a_restore_needs_beside_it(tmp_path: Path) -> None:
    code, told = _backed_up(tmp_path)
    assert code == 0
    (dump,) = (tmp_path / "into").glob("ledger-*")
    assert (dump.suffix, dump.read_text(), dump.stat().st_mode & 0o777) == (".dump", "PGDMP of the ledger", 0o600)
    assert any(f"--volume {tmp_path}/into/kept:/kept" in line for line in told)
    assert [line for line in told if "exec" in line] == [
        "compose exec -T postgres pg_dump -U aswhom --format custom aswhom",
        "compose exec -T postgres pg_restore --list",
    ]


def test_a_dump_that_cannot_be_read_does_not_take_a_dumps_name(tmp_path: Path) -> None:
    code, _ = _backed_up(tmp_path, whole="something else")
    assert code != 0
    assert [file.suffix for file in (tmp_path / "into").iterdir()] == [".part"]


def test_what_a_restore_needs_is_kept_more_often_than_a_dump(tmp_path: Path) -> None:
    code, told = _backed_up(tmp_path, "kept")
    assert code == 0
    assert not any("pg_dump" in line for line in told)
    assert [file.name for file in (tmp_path / "into").iterdir()] == ["kept"]
