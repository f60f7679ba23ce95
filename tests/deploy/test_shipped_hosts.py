"""What hosts are given: systemd's units run the processes of the Procfile, and nginx logs no link that lets in."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path

import pytest

from deploy.process import EX_CONFIG
from deploy.procfile import Process
from deploy.settings import Settings
from deploy.up import patience
from tests.deploy.shipped import PROCESSES
from tests.docs.pages import ROOT
from tests.webhooks.whole_app import every_route
from webhooks.settings import WebSettings

UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))
INSTALLED = "/opt/aswhom/bin/"
NGINX = (ROOT / "deploy/nginx/aswhom.conf").read_text(encoding="utf-8")


def read(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text(encoding="utf-8"))
    return parser


def command(path: Path, instance: str = "") -> tuple[str, ...]:
    """As systemd would run it: %i is the instance, %% is %, and any other specifier is a mistake."""
    line = read(path)["Service"]["ExecStart"]
    assert set(re.findall(r"%(.)", line.replace("%%", ""))) <= {"i"}, line
    line = line.replace("%i", instance).replace("%%", "%")
    assert line.startswith(INSTALLED)
    return tuple(shlex.split(line.removeprefix(INSTALLED)))


@pytest.mark.parametrize("process", PROCESSES.values(), ids=lambda one: one.name)
def test_each_process_has_a_unit_that_runs_it(process: Process) -> None:
    if process.name == "worker":
        assert command(ROOT / "deploy/systemd/aswhom-worker@.service", "2") == process.numbered(2).command
    else:
        assert command(ROOT / f"deploy/systemd/aswhom-{process.name}.service") == process.command


def test_no_unit_runs_anything_else() -> None:
    named = {f"aswhom-{name}{'@' * (name == 'worker')}.service" for name in PROCESSES}
    assert {path.name for path in UNITS} == named | {"aswhom-up.service"}


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_is_tried_again_for_ever_but_for_what_is_wrong_for_good(path: Path) -> None:
    unit, service = read(path)["Unit"], read(path)["Service"]
    assert unit["StartLimitIntervalSec"] == "0"
    assert service["Restart"] in ("on-failure", "always")
    assert (service["RestartPreventExitStatus"], int(service["RestartSec"]) >= 1) == (str(EX_CONFIG), True)
    assert float(service["TimeoutStopSec"]) > patience(Settings()).total_seconds()
    assert (service["User"], service["EnvironmentFile"]) == ("aswhom", "/etc/aswhom/env")


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_may_write_its_data_directory_and_no_more(path: Path) -> None:
    service = read(path)["Service"]
    assert (service["ProtectSystem"], service["NoNewPrivileges"], service["UMask"]) == ("strict", "yes", "0077")
    assert service["ReadWritePaths"] == service["WorkingDirectory"] == "/var/lib/aswhom"


def test_a_process_that_is_killed_for_its_memory_does_not_stop_what_its_own_supervisor_keeps() -> None:
    for name in ("up", "web"):
        assert read(ROOT / f"deploy/systemd/aswhom-{name}.service")["Service"]["OOMPolicy"] == "continue"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_takes_no_host_with_it_and_a_web_may_open_what_it_accepts(path: Path) -> None:
    service = read(path)["Service"]
    limits = {"aswhom-up": ("80%", "65536"), "aswhom-web": ("1G", "65536")}
    assert (service["MemoryMax"], service.get("LimitNOFILE")) == limits.get(path.stem, ("512M", None))


def test_the_processes_of_a_host_stop_together() -> None:
    target = read(ROOT / "deploy/systemd/aswhom.target")
    assert target["Install"]["WantedBy"] == "multi-user.target"
    for path in UNITS:
        together = path.name != "aswhom-up.service"
        assert (read(path)["Unit"].get("PartOf") == "aswhom.target") == together
        assert (read(path)["Install"]["WantedBy"] == "aswhom.target") == together


def _told(path: str) -> str:
    """What nginx writes of a path, by its `map`: the first expression that fits, else the path."""
    for pattern, form in re.findall(r'^    "~(\^.*)" "(.*)";$', NGINX, re.MULTILINE):
        if found := re.match(pattern.replace("(?<", "(?P<"), path):
            return re.sub(r"\$\{(\w+)\}", lambda name: found[name[1]], form)
    return path


def test_nginx_writes_down_no_link_that_connects_signs_in_or_approves() -> None:
    letting_in = {rule for rule in every_route() if re.search(r"<(\w+:)?(link|token|session)>", rule)}
    assert letting_in >= {"/connect/<link>", "/connect/result/<session>", "/approvals/<link>", "/console/link/<token>"}
    for rule in letting_in:
        assert "SECRET" not in _told(re.sub(r"<.*?>", "SECRET", rule)), rule
    assert _told("/console/approvals/apv_1") == "/console/approvals/apv_1"
    logged = re.search(r"log_format aswhom (.*?);$", NGINX, re.DOTALL | re.MULTILINE)
    assert logged is not None
    variables = set(re.findall(r"\$(\w+)", logged[1]))
    assert variables.isdisjoint({"request", "request_uri", "args", "uri", "http_referer", "query_string"})
    assert set(re.findall(r"access_log (.*);", NGINX)) == {"off", "/var/log/nginx/aswhom.access.log aswhom"}
    assert {line.rsplit(" ", 1)[1] for line in re.findall(r"error_log (.*);", NGINX)} == {"crit"}


def test_nginx_takes_what_the_web_takes_whole_and_keeps_the_metrics_to_itself() -> None:
    (most,) = re.findall(r"client_max_body_size (\d+)m;", NGINX)
    assert int(most) * 1024 * 1024 >= WebSettings(base_url="http://127.0.0.1").max_body
    assert "proxy_request_buffering on;" in NGINX
    assert re.search(r"location = /metrics \{\s+return 404;", NGINX)
    assert f"server {Settings().listen};" in NGINX


def test_nginx_takes_a_delivery_to_the_next_web_where_one_is_gone_and_sends_nothing_else_twice() -> None:
    locations = re.findall(r"location (.+) \{\s+proxy_next_upstream (.*?);", NGINX)
    assert locations == [("~ ^/(webhooks|events)/", "error timeout"), ("/", "off")]
    assert "non_idempotent" not in NGINX
