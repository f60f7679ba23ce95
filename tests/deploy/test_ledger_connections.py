"""How many connections to PostgreSQL each process holds, and how many all of them."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from deploy.checkup import postgresql
from deploy.installation import Installation
from deploy.ledger_connections import most_connections, of_all_seen, of_one_host, of_these
from deploy.settings import Settings, load
from identity.errors import Misconfigured
from pipeline.db.database import DatabaseSettings
from tests.deploy.conftest import Cli
from tests.deploy.shipped import deployments
from tests.docs.pages import page
from tests.servers.postgres import Postgres

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.mark.parametrize(
    ("process", "by_itself", "with_6", "with_100"),
    [
        ("web", 16, 6, 34),
        ("worker-2", 18, 6, 34),
        ("revocations", 10, 6, 10),
        ("housekeeping", 12, 6, 31),
        ("beat", 2, 2, 2),
    ],
)
def test_a_process_holds_what_it_needs_or_what_is_said(
    process: str, by_itself: int, with_6: int, with_100: int
) -> None:
    said = [None, 6, 100]
    assert [load(database_connections=one).database(process).connections for one in said] == [
        by_itself,
        with_6,
        with_100,
    ]


def test_no_process_is_given_more_than_its_threads_can_use() -> None:
    """And two, for what goes ahead: the numbers stand where neither knows the other."""
    of_gunicorn = re.search(r"^threads = (\d+)$", (DEPLOY / "gunicorn.py").read_text(), re.MULTILINE)
    assert of_gunicorn is not None
    assert most_connections(load(database_connections=100), "web") == int(of_gunicorn[1]) + 2
    assert most_connections(load(database_connections=100), "worker") == DatabaseSettings(url="").threads


def test_a_worker_that_writes_more_at_once_holds_more_and_a_command_is_not_counted() -> None:
    assert load(worker_writes=12).database("worker").connections == 22
    assert load().database().connections is None
    with pytest.raises(Misconfigured, match="ASWHOM_DATABASE_CONNECTIONS"):
        load(database_connections=3)


@pytest.mark.parametrize(
    ("code", "process"),
    [
        ("import deploy.beat as one", "beat"),
        ("import deploy.worker as one; one.set_up('x@h', {'queues': ['revocations']})", "revocations"),
        ("import deploy.worker as one; one.set_up('worker-2@h', {})", "worker-2"),
    ],
)
def test_a_celery_process_opens_the_ledger_as_what_it_is(code: str, process: str, tmp_path: Path) -> None:
    environment = {"ASWHOM_DATA_DIR": str(tmp_path), "ASWHOM_WORKER_METRICS_PORT": "0"}
    environment |= {"ASWHOM_REVOCATIONS_METRICS_PORT": "0", "PATH": ""}
    told = [sys.executable, "-c", f"{code}; print(one.app.listed)"]
    ran = subprocess.run(told, env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.split()[-1] == process


def test_all_that_are_seen_count_by_their_names_on_each_host_and_not_by_what_they_have_open_now() -> None:
    seen: dict[tuple[str, str | None], int] = {
        ("aswhom-web", "10.0.0.1"): 3,
        ("aswhom-web", "10.0.0.2"): 40,
        ("aswhom-worker-1", "10.0.0.1"): 1,
    }
    assert of_all_seen(Settings(), seen) == 32 + 40 + 18
    assert of_one_host(load(web_processes=3, workers=1)) == 3 * 16 + 18 + 10 + 12 + 2


def test_doctor_counts_the_processes_of_all_hosts(cli: Cli, postgres: Postgres) -> None:
    from deploy.upgrade import migrate

    url = postgres.url(postgres.create_database())
    address = url.replace("postgresql+psycopg:", "postgresql:")
    settings = Settings(data_dir=cli.data_dir, database_url=url)  # type: ignore[arg-type]
    migrate(settings)
    with Installation(settings) as at, ExitStack() as there:
        takes = int(at.read(lambda c: c.execute(text("show max_connections")).scalar_one()))
        workers = takes // 18 + 1
        assert [one for one in postgresql.server(at) if "max_connections" in one.says] == []
        for number in range(workers):
            there.enter_context(psycopg.connect(address, application_name=f"aswhom-worker-{number}"))
        (found,) = (one.says for one in postgresql.server(at) if "max_connections" in one.says)
    assert f"takes {takes} connections, of which it keeps 3 for administrators" in found
    assert f"the processes on all hosts hold up to {18 * workers}" in found
    assert f"set max_connections to {18 * workers + 20} or more, or ASWHOM_DATABASE_CONNECTIONS to fewer" in found


def test_the_documents_figures_are_these() -> None:
    started = {name: spec["replicas"] for name, spec in deployments().items()}
    told = page("howto/run-on-many-hosts.md")
    assert f"the Kubernetes file as it is {of_these(Settings(), started)}" in told
    assert f"what one host starts {of_one_host(Settings())}" in told
    each = [f"a `{kind}` {most_connections(Settings(), kind)}" for kind in started]
    assert [one for one in each if one not in told] == []
