"""Settings: every fault at once, by name, and never a secret."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.exceptions import OperationalError

from deploy.environment import sudo_user
from deploy.process import listed_as, serve_metrics, tell_raised
from deploy.secret_files import IN_FILES
from deploy.settings import Settings, load
from identity.errors import Misconfigured
from pipeline.broker.celery import OpenedRuntime, make_celery
from tests.deploy.conftest import Cli, told
from tests.deploy.running import answers
from tests.servers.tls import tls_before
from tests.servers.valkey import Valkey
from tests.waiting import eventually


def test_every_fault_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "LISTEN": "8080",
        "BASE_URL": "https://aswhom.example/path",
        "CALL_DEADLINE": "soon",
        "DATABASE_URL": "mysql://root:hunter2@db/x",
        "BROKER_URL": "kafka://hunter2@broker",
        "JOB_RUNS": "0",
        "LOG_FORMAT": "xml",
        "WORKER_HOLDS": "5",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"ASWHOM_{name}", value)
    with pytest.raises(Misconfigured) as caught:
        load()
    told = str(caught.value)
    assert [name for name in given if f"ASWHOM_{name}" not in told] == []
    assert len(told.splitlines()) == 1 + len(given)
    assert "is ASWHOM_WORKER_HOLD meant?" in told
    assert "hunter2" not in told


def test_a_job_has_no_more_runs_than_can_be_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASWHOM_JOB_RUNS", "1001")
    with pytest.raises(Misconfigured, match=r"ASWHOM_JOB_RUNS.*1000"):
        load()


def test_a_default_that_follows_a_faulty_setting_is_no_fault_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASWHOM_LISTEN", "nowhere")
    with pytest.raises(Misconfigured) as caught:
        load()
    assert "BASE_URL" not in str(caught.value)


def test_what_is_not_set_has_the_default_of_the_type_that_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.execution.services import StepSettings
    from pipeline.execution.worker import WorkerSettings

    settings = load()
    settings.key_files().create()
    assert settings.runtime().steps == StepSettings()
    monkeypatch.setenv("ASWHOM_CALL_DEADLINE", "0.5")
    monkeypatch.setenv("ASWHOM_JOB_RUNS", "2")
    changed = load().runtime()
    assert changed.steps.call_deadline == timedelta(seconds=0.5)
    assert changed.jobs == WorkerSettings(runs=2)


def test_what_is_given_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASWHOM_DATA_DIR", "/elsewhere")
    assert load(data_dir=tmp_path, broker_url=None).data_dir == tmp_path


def test_a_postgresql_address_names_its_driver() -> None:
    for address in ("postgres://u@db/x", "postgresql://u@db/x", "postgresql+psycopg://u@db/x"):
        assert (
            load(database_url=f"{address}?sslmode=disable").ledger_url()
            == "postgresql+psycopg://u@db/x?sslmode=disable"
        )


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:hunter2@db.example/x",
        "postgresql://u:hunter2@/x?host=db.example",
        "postgresql://u:hunter2@/x?host=127.0.0.1:1&host=db.example:2",
        "postgresql://u:hunter2@localhost/x?hostaddr=10.0.0.5",
        "postgresql://u:hunter2@127.0.0.1,db.example/x",
    ],
)
def test_a_postgresql_on_another_host_is_said_to_be_spoken_to_over_tls_or_without(address: str) -> None:
    """libpq would speak in clear text to whoever says that it has no TLS."""
    with pytest.raises(Misconfigured) as refused:
        load(database_url=address)
    for said in ("is another host", "sslmode=verify-full", "sslmode=disable"):
        assert said in str(refused.value)
    assert "hunter2" not in str(refused.value)
    for mode in ("verify-full", "disable", "require"):
        said = f"{address}{'&' if '?' in address else '?'}sslmode={mode}"
        assert load(database_url=said).ledger_url().endswith(f"sslmode={mode}")
    with pytest.raises(Misconfigured, match="take verify-full"):
        load(database_url=f"{address}{'&' if '?' in address else '?'}sslmode=yes")


def test_what_libpq_is_told_by_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE"):
        with monkeypatch.context() as set_:
            set_.setenv(name, "10.0.0.5")
            with pytest.raises(Misconfigured, match=r"10\.0\.0\.5 (names )?is another host"):
                load(database_url="postgresql:///x")
            set_.setenv("PGSSLMODE", "verify-full")
            load(database_url="postgresql:///x")


@pytest.mark.parametrize(
    "address",
    ["postgresql:///x", "postgresql://u@/x?host=%2Ftmp", "postgresql://u@[::1]/x", "postgresql://u@localhost/x"],
)
def test_nothing_is_asked_of_a_postgresql_on_this_host(address: str) -> None:
    assert not load(database_url=address).on_sqlite


def test_an_address_that_is_none_is_a_fault_without_its_password() -> None:
    with pytest.raises(Misconfigured, match="ASWHOM_DATABASE_URL: that is no URL") as refused:
        load(database_url="postgresql://u:hunter2@a:1,b:2/x")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "entry", ["https://a.example", "http://a.example", "a.example/x", "u@a.example", "*.a.example"]
)
def test_what_no_host_could_be_named_is_a_fault(entry: str) -> None:
    with pytest.raises(Misconfigured, match="ASWHOM_ALLOW_HOSTS: give host"):
        load(allow_hosts=entry)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("::1", "write [::1]"),
        ("http://git.internal", "write http://git.internal:80, or the port"),
        ("git.internal:8443 127.0.0.1", "separate several by commas"),
        ("https://git.internal", "leave https:// out"),
        ("10.0.0.0/8", "a network or a pattern is none, so name each host"),
        ("*.internal", "a network or a pattern is none, so name each host"),
    ],
)
def test_what_was_meant_by_an_entry_that_is_no_host_is_told(entry: str, says: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        load(allow_hosts=entry)
    assert str(refused.value).partition("is none of these: ")[2].startswith(says)


@pytest.mark.parametrize("name", ["ASWHOM_AUDIT_KEY_FILE", "ASWHOM_VISIBILITY_TIMEOUT"])
def test_a_setting_of_an_earlier_version_is_to_be_unset_and_never_taken_for_another(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who named the vault's file as the audit's key was would lose it."""
    monkeypatch.setenv(name, "x")
    with pytest.raises(Misconfigured, match=f"{name} is no setting any more: unset it") as refused:
        load()
    assert "meant?" not in str(refused.value)


@pytest.mark.parametrize("entry", ["https://a.example", "a.example:443", "a.*.example", "*", "*.", "a.example/x"])
def test_what_no_host_to_reach_could_be_named_is_a_fault(entry: str) -> None:
    with pytest.raises(Misconfigured, match="ASWHOM_EGRESS_HOSTS: give hosts"):
        load(egress_hosts=entry)


def test_hosts_are_read_as_urls_write_them() -> None:
    settings = load(
        allow_hosts="IdP.Internal, http://[::1]:8080,ghe.internal:8443", egress_hosts="*.Okta.com,a.example"
    )
    assert settings.allow_hosts == ("idp.internal", "http://[::1]:8080", "ghe.internal:8443")
    assert settings.egress_hosts == ("*.okta.com", "a.example")
    assert settings.addresses().leaves_out("a.okta.com", 443) is False


@pytest.mark.parametrize(
    ("broker", "redis"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("rediss://h:1/0", "rediss://h:1/0?ssl_cert_reqs=required"),
        ("redis+socket:///a%20b/v.sock?virtual_host=0", "unix:///a%20b/v.sock?db=0"),
        ("amqp://h", None),
        ("sentinel://h:1", None),
    ],
)
def test_the_refresh_locks_are_where_the_broker_is_if_that_is_a_redis(broker: str, redis: str | None) -> None:
    assert load(broker_url=broker).redis() == redis
    assert load(broker_url=broker, redis_url="redis://other:1/0").redis() == "redis://other:1/0"


def test_a_broker_over_tls_must_have_a_certificate_that_is_trusted(valkey: Valkey, tmp_path: Path) -> None:
    """Kombu would take any, if it were not told otherwise."""

    def of_broker(address: str) -> None:
        with make_celery(load(broker_url=address).broker(), _never).connection() as broker:
            channel: Any = broker.default_channel
            channel.client.ping()

    def of_locks(address: str) -> None:
        with redis.Redis.from_url(load(broker_url=address).redis() or "", retry=None) as locks:
            locks.ping()

    with tls_before(valkey.port, tmp_path) as (port, certificate):
        address = f"rediss://:{valkey.password}@127.0.0.1:{port}/0"
        for asked in (f"ssl_ca_certs={certificate}", "ssl_cert_reqs=none"):
            of_broker(f"{address}?{asked}")
            of_locks(f"{address}?{asked}")
        with pytest.raises(OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
            of_broker(address)
        with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            of_locks(address)
    with pytest.raises(Misconfigured, match="ssl_cert_reqs as one of: required"):
        load(broker_url="rediss://h:1/0?ssl_cert_reqs=CERT_REQUIRED")


@pytest.mark.parametrize(
    "broker",
    [
        "redis://:hunter2@a:1/3;redis://:hunter2@b:1/3",
        "rediss://:hunter2@a:1/0;rediss://:hunter2@b:1/0",
        "redis://:hunter2@a:1/0;kafka://hunter2@b",
        "amqp://hunter2@a;redis://:hunter2@b:1/0",
    ],
)
def test_two_servers_that_do_not_hold_the_same_are_refused(broker: str) -> None:
    for name in ("broker_url", "redis_url"):
        with pytest.raises(Misconfigured, match=f"ASWHOM_{name.upper()}: give") as caught:
            load(**{name: broker})
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("broker", ["amqp://u:hunter2@a//;b", "sentinel://a:1;b:1"])
def test_each_of_several_members_is_written_in_full(broker: str) -> None:
    with pytest.raises(Misconfigured, match=r"ASWHOM_BROKER_URL.*each address in full") as refused:
        load(broker_url=broker)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("broker", ["amqp://u:p@a;amqp://u:p@b", "sentinel://a:1;sentinel://b:1"])
def test_several_members_of_one_broker_are_taken(broker: str) -> None:
    assert load(broker_url=broker).broker().url == broker


def test_an_address_of_the_locks_that_is_none_is_refused_without_its_password() -> None:
    with pytest.raises(Misconfigured, match="begins with one of: redis://") as caught:
        load(redis_url="http://:hunter2@h")
    assert "hunter2" not in str(caught.value)


def _never() -> OpenedRuntime:
    raise AssertionError("no worker is started here")


def test_a_child_in_another_directory_sees_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASWHOM_WORKFLOWS", "one, two")
    monkeypatch.setenv("ASWHOM_DATABASE_URL", "sqlite:///ledger.db")
    settings = load(data_dir=Path("here"), call_deadline=timedelta(seconds=1.5), listen="0.0.0.0:81", allow_http=True)
    child = settings.environment()
    for name in list(os.environ):
        if name.startswith("ASWHOM_"):
            monkeypatch.delenv(name)
    for name, value in child.items():
        if name.startswith("ASWHOM_"):
            monkeypatch.setenv(name, value)
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    again = load()
    assert again.data_dir == tmp_path / "here"
    assert again.ledger_url() == f"sqlite:///{tmp_path / 'ledger.db'}"
    assert again.key_files() == settings.key_files()
    assert (again.workflows, again.call_deadline) == (("one", "two"), timedelta(seconds=1.5))
    assert again.base_url == settings.base_url == "http://127.0.0.1:81"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://Aswhom.Example", "https://aswhom.example"),
        ("https://aswhom.example:443/", "https://aswhom.example"),
        ("http://aswhom.example:80", "http://aswhom.example"),
        ("HTTPS://aswhom.example:8443", "https://aswhom.example:8443"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_the_address_is_kept_as_browsers_write_an_origin(given: str, kept: str) -> None:
    assert load(base_url=given, allow_http=True).base_url == kept


@pytest.mark.parametrize("given", ["https://a.example#x", "https://me@a.example", "https://me:hunter2@a.example"])
def test_an_address_with_more_than_an_origin_is_refused(given: str) -> None:
    with pytest.raises(Misconfigured, match="without a path") as refused:
        load(base_url=given)
    assert "hunter2" not in str(refused.value)


def test_a_process_that_must_leave_waits_for_the_longest_call_of_the_others() -> None:
    from pipeline.execution.services import StepSettings

    usual = StepSettings()
    assert load().limits().grace > usual.send_within + usual.call_deadline
    assert load(call_deadline=timedelta(minutes=2)).limits().grace > timedelta(minutes=2)
    assert load(task_grace=timedelta(minutes=1)).limits().grace == timedelta(minutes=1)


@pytest.mark.parametrize("given", [0, 10, 27])
def test_a_grace_that_is_shorter_than_a_call_is_raised_and_the_worker_says_so(
    caplog: pytest.LogCaptureFixture, given: int
) -> None:
    settings = load(task_grace=timedelta(seconds=given))
    assert settings.limits().grace == timedelta(seconds=5 + 20 + 3)
    tell_raised(settings)
    assert f"ASWHOM_TASK_GRACE ({given} s) is shorter than a call may take" in caplog.text
    assert "it is taken as 28 s" in caplog.text
    caplog.clear()
    for well in (load(), load(task_grace=timedelta(seconds=28))):
        tell_raised(well)
    assert not caplog.records


def test_secrets_in_addresses_are_not_shown() -> None:
    settings = load(database_url="postgresql://u:hunter2@127.0.0.1/x", broker_url="redis://:hunter2@h/0")
    assert "hunter2" not in f"{settings!r} {settings} {settings.broker()!r}"


def test_each_worker_of_a_machine_has_a_metrics_port_of_its_own() -> None:
    settings = load()
    names = ("worker-1", "worker-2", "revocations", "housekeeping", "beat")
    ports = [settings.metrics_port(name) for name in names]
    assert len(set(ports)) == len(names)
    assert load(worker_metrics_port=0).metrics_port("worker-2") == 0
    assert settings.metrics_port("web") == 0  # it answers on its own address


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"web_metrics_port": 9101}, "ASWHOM_WORKER_METRICS_PORT.*ASWHOM_WEB_METRICS_PORT"),
        ({"web_metrics_port": 9110, "workers": 10}, "ASWHOM_WORKER_METRICS_PORT.*ASWHOM_WEB_METRICS_PORT"),
        ({"beat_metrics_port": 9111}, "ASWHOM_BEAT_METRICS_PORT.*ASWHOM_REVOCATIONS_METRICS_PORT"),
        ({"web_metrics_port": 8080}, "ASWHOM_WEB_METRICS_PORT.*ASWHOM_LISTEN"),
    ],
    ids=str,
)
def test_two_ports_that_meet_are_a_fault(given: dict[str, Any], names: str) -> None:
    with pytest.raises(Misconfigured, match=names):
        load(**given)


def test_the_ports_that_are_shipped_do_not_meet() -> None:
    load(web_metrics_port=9110)
    load(worker_metrics_port=0, beat_metrics_port=0, revocations_metrics_port=0, workers=10)


@pytest.mark.parametrize(
    ("name", "queues", "port"),
    [
        ("worker", ["service", "hybrid"], 9101),
        ("delegated", ["delegated"], 9101),
        ("worker-2", ["service"], 9102),
        ("worker-10", ["service"], 9110),
        ("anything", [], 9101),
        # A host's, a pod's, or a day's.
        ("worker-0", ["service"], 9101),
        ("worker-11", ["service"], 9101),
        ("ip-10-0-3-41", ["service"], 9101),
        ("billing-20261130", ["service"], 9101),
        ("revocations-2", ["revocations"], 9111),
        ("revocations", ["revocations"], 9111),
        ("quick", ["revocations"], 9111),
    ],
)
def test_a_worker_has_a_metrics_port_whatever_it_is_called(name: str, queues: list[str], port: int) -> None:
    assert load().metrics_port(listed_as(name, queues)) == port


def test_a_port_that_there_is_not_is_told_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    serve_metrics("worker-2", load(worker_metrics_port=65535), is_well=lambda: True, is_ready=lambda: True)
    assert "no metrics from worker-2, and no answer at /healthz: 127.0.0.1:65536 cannot be had" in caplog.text
    assert "Set ASWHOM_WORKER_METRICS_PORT to a free port" in caplog.text


def test_a_port_that_is_taken_is_had_once_it_is_free(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        serve_metrics("beat", load(beat_metrics_port=port), is_well=lambda: True, is_ready=lambda: True)
        assert len(caplog.records) == 1
    eventually(lambda: answers(f"http://127.0.0.1:{port}/healthz"), "the port is had")
    assert len(caplog.records) == 1


def test_settings_that_contradict_each_other_are_all_named_at_start(cli: Cli) -> None:
    wrong = load(
        data_dir=cli.data_dir,
        worker_hold=timedelta(seconds=1),
        call_deadline=timedelta(minutes=4),
        step_backoff=timedelta(minutes=10),
    )
    with pytest.raises(Misconfigured) as refused:
        wrong.runtime()
    for name in ("ASWHOM_WORKER_HOLD (1 s)", "ASWHOM_STEP_BACKOFF (600 s)"):
        assert name in str(refused.value)
    with pytest.raises(Misconfigured, match="ASWHOM_TASK_LIMIT"):
        load(data_dir=cli.data_dir, task_limit=timedelta(seconds=55)).runtime()
    assert load(data_dir=cli.data_dir, task_limit=timedelta(seconds=56)).runtime() is not None


@pytest.mark.parametrize("name", ["ASWHOM_TASK_LIMIT", "ASWHOM_KEEP_DELIVERIES"])
def test_the_doctor_names_settings_with_which_no_process_starts(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "10")
    ((state, says),) = told(cli, "settings")
    assert (state, says.startswith(f"no process starts: {name} (10 ")) == ("wrong", True)


@pytest.mark.parametrize("name", ["two words", "a\tb", "acme/ada", "a" * 65])
def test_an_operators_name_is_one_word(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("ASWHOM_OPERATOR", name)
    with pytest.raises(Misconfigured, match="ASWHOM_OPERATOR"):
        load()


def test_who_became_root_by_sudo_is_known_and_nobody_else_is_by_that_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ada")
    assert (sudo_user(uid=0), sudo_user(uid=1000)) == ("ada", None)
    for none in ("", "two words"):
        monkeypatch.setenv("SUDO_USER", none)
        assert sudo_user(uid=0) is None


SECRETS = {
    "database_url": "postgresql://u:hunter2@127.0.0.1/x",
    "broker_url": "rediss://:hunter2@h:1/0",
    "redis_url": "unix:///run/hunter2.sock",
    "console_client_secret": "hunter2 ' $x",
}


def test_every_secret_setting_may_be_a_file() -> None:
    """The vault's keys have one of their own form."""
    secret = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert secret - {"vault_keys"} == set(SECRETS) == set(IN_FILES)
    assert {f"{name}_file" for name in SECRETS} <= Settings.model_fields.keys()


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_in_a_file_is_as_one_in_the_environment(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    variable = f"ASWHOM_{name.upper()}"
    others = {"console_issuer": "https://a.example", "console_client_id": "c"} if name.startswith("console") else {}
    for end in ("\n", "\r\n", ""):
        file.write_text(SECRETS[name] + end)
        with monkeypatch.context() as set_:
            set_.setenv(f"{variable}_FILE", "secret")
            in_file = load(**others)
        with monkeypatch.context() as set_:
            set_.setenv(variable, SECRETS[name])
            in_environment = load(**others)
        assert getattr(in_file, name) == getattr(in_environment, name)
    child = in_file.environment()
    assert (child[f"{variable}_FILE"], variable in child) == (str(file), False), "nobody's environment holds it"


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_file_that_cannot_be_used_is_a_fault_that_names_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, variable = tmp_path / "secret", f"ASWHOM_{name.upper()}"
    monkeypatch.setenv(f"{variable}_FILE", str(file))

    def fault() -> str:
        with pytest.raises(Misconfigured) as refused:
            load()
        said = str(refused.value)
        assert (f"{variable}_FILE" in said, "hunter2" in said) == (True, False)
        return said

    assert "No such file" in fault()
    file.write_text("\n")
    assert "is empty" in fault()
    file.write_text(f"{SECRETS[name]}\n{SECRETS[name]}\n")
    assert "more than one line" in fault()
    file.write_bytes(b"hunter2\xff")
    assert "UTF-8" in fault()
    file.write_text(SECRETS[name])
    file.chmod(0o620)
    assert "can be written by others" in fault()
    file.chmod(0o444)
    monkeypatch.setenv(variable, SECRETS[name])
    assert "unset one of the two" in fault()


def test_what_a_command_line_says_goes_before_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("postgresql:///production")
    monkeypatch.setenv("ASWHOM_DATABASE_URL_FILE", str(tmp_path / "secret"))
    drill = load(database_url="postgresql:///drill")
    assert drill.ledger_url() == "postgresql+psycopg:///drill"
    child = drill.environment()
    assert (child["ASWHOM_DATABASE_URL"], "ASWHOM_DATABASE_URL_FILE" in child) == (
        "postgresql+psycopg:///drill",
        False,
    )


def test_what_is_kept_cannot_be_kept_shorter_than_what_it_needs(cli: Cli) -> None:
    for kept, why in (
        ({"keep_jobs": 400, "keep_steps": 0}, "where ASWHOM_KEEP_STEPS is 0"),
        ({"keep_deliveries": 29}, "ASWHOM_KEEP_DELIVERIES"),
    ):
        with pytest.raises(Misconfigured, match=why):
            load(data_dir=cli.data_dir, **kept).retention()
    lasting = load(data_dir=cli.data_dir, keep_jobs=400, keep_deliveries=30).retention()
    assert (lasting.jobs, lasting.deliveries) == (400, 30)
