"""Variables that Celery reads by itself change nothing: neither where bells go, nor how a worker runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from celery import Celery
from celery.backends.base import DisabledBackend

from deploy.process import celery_app, celerys_or_exit
from deploy.settings import load
from pipeline.authoring.registry import Registry
from pipeline.broker.celery import BrokerSettings, OpenedRuntime, make_celery
from tests.deploy.conftest import Cli
from tests.waiting import PATIENCE

OURS = "redis://:**@mine:6379/0"
# What a `celery` command would make of each, as a worker's option or a setting of the application.
HOSTILE = {
    "CELERY_BROKER_URL": "redis://other:6379/5",
    "CELERY_BROKER_READ_URL": "redis://other:6379/5",
    "CELERY_BROKER_WRITE_URL": "redis://other:6379/5",
    "CELERY_RESULT_BACKEND": "redis://other:6379/6",
    "CELERY_BROKER": "redis://other:6379/5",
    "CELERY_CONFIG_MODULE": "nobody.has.this",
    "CELERY_LOADER": "nobody.has.this:Loader",
    "CELERY_CUSTOM_WORKER_POOL": "nobody.has.this:Pool",
    "CELERY_WORKER_POOL": "solo",
    "CELERY_WORKER_AUTOSCALE": "3,1",
    "CELERY_WORKER_MAX_TASKS_PER_CHILD": "1",
}


def never() -> OpenedRuntime:
    raise AssertionError("nothing is opened here")


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.endswith(("_URL", "_BACKEND"))])
def test_bells_go_where_the_settings_say_though_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, HOSTILE[name])
    app = make_celery(BrokerSettings(url=OURS), never)
    for connection in (app.connection(), app.connection_for_read(), app.connection_for_write()):
        assert connection.as_uri() == OURS
    assert isinstance(app.backend, DisabledBackend)


@pytest.mark.parametrize("name", HOSTILE)
def test_each_stays_in_the_environment_for_a_celery_of_the_workflows_and_ours_heeds_none(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, HOSTILE[name])
    settings = load(broker_url=OURS)
    app = celery_app(settings, Registry.load(()))
    assert app.connection_for_write("redis://other:6379/5").as_uri() == OURS  # as Celery asks to prepare RabbitMQ
    assert app.conf.task_ignore_result
    assert os.environ[name] == settings.environment()[name] == HOSTILE[name]


@pytest.mark.parametrize("name", ["REMAP_SIGTERM", "CELERY_WORKDIR"])
def test_what_would_end_a_child_is_not_handed_on_to_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "x")
    assert name not in load().environment()


def test_a_workflow_hands_work_to_a_celery_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://theirs:6379/0")
    theirs = Celery("theirs", set_as_current=False)
    celery_app(load(broker_url=OURS), Registry.load(()))
    assert theirs.connection_for_write().hostname == "theirs"


@pytest.mark.parametrize("name", ["REMAP_SIGTERM", "CELERY_WORKDIR"])
def test_what_a_celery_command_cannot_forget_ends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv(name, "")
    assert celerys_or_exit() == [name]
    monkeypatch.setenv(name, "SIGQUIT")
    with pytest.raises(SystemExit) as ended:
        celerys_or_exit()
    assert ended.value.code == os.EX_CONFIG
    assert f"`env -u {name} celery …`" in capsys.readouterr().err


def test_the_options_of_a_worker_are_those_of_its_command_line(cli: Cli, tmp_path: Path) -> None:
    """Read where `celery` would start the worker, in a process of its own: Click takes options from the environment."""
    seen = """
import sys
from celery.bin import worker
from celery.bin.celery import main
def tell(ctx, **options):
    print(len([name for name in __import__("os").environ if name.startswith("CELERY_")]))
    print(options["pool"], options["autoscale"], options["max_tasks_per_child"], ctx.obj.app.connection().as_uri())
worker.worker.callback = __import__("click").pass_context(tell)
sys.argv[1:] = ["--app", "deploy.worker", "worker", "--queues", "service"]
main()
"""
    environment = {
        **os.environ,
        **HOSTILE,
        "ASWHOM_DATA_DIR": str(cli.data_dir),
        "ASWHOM_BROKER_URL": OURS,
    }
    ran = subprocess.run(
        [sys.executable, "-c", seen],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.stdout.splitlines() == [
        str(len(HOSTILE)),
        f"<class 'pipeline.broker.pool.TaskPool'> None None {OURS}",
    ], ran.stderr
