"""`trigger` and `deliveries`: signed deliveries to a real web, and what they start later."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, insert, update
from werkzeug.serving import make_server

from deploy import fixtures
from deploy.cli import deliveries as deliveries_cli
from deploy.fixtures.signing import signature
from deploy.installation import Installation
from deploy.process import open_runtime
from deploy.settings import load
from identity.audit import AsWhom, record
from identity.audit.sealer import Sealer
from identity.errors import Misconfigured, Unavailable
from identity.secret import Secret
from identity.sql.store import CommitUnknown
from pipeline.tables import deliveries, workflow_settings
from tests.deploy.conftest import Cli
from tests.identity.audits import as_owner, edit
from tests.ledger.house import House
from tests.webhooks.parts import NOW, MemoryRing
from webhooks.app import create_app

KEY = "whsec_" + "a2tr" * 8


@pytest.fixture
def acme(cli: Cli, tmp_path: Path) -> Cli:
    """A tenant, and a connection of every sender."""
    secret, key = tmp_path / "secret", tmp_path / "key"
    secret.write_text("hunter2-hunter2\n")
    key.write_text(KEY)
    cli.json("tenants", "add", "acme", "--name", "Acme")
    for provider in ("github", "slack", "linear"):
        cli.json("connections", "add", provider, "--client-id", "Iv1", "--webhook-secret-file", str(secret))
    cli.json("installations", "add", "github", "42", "acme")
    cli.json("installations", "add", "slack", "T0000000007", "acme")
    cli.json("installations", "add", "linear", "00000000-0000-4000-8000-000000000007", "acme")
    cli.json("connections", "add-sender", "standard", "--id", "billing", "--tenant", "acme", "--webhook-secret-file",
             str(key))  # fmt: skip
    return cli


@pytest.fixture
def web(acme: Cli) -> Iterator[str]:
    """The web of this installation, on a port of its own; nobody works."""
    settings = load(data_dir=acme.data_dir)
    runtime = open_runtime(settings)
    app = create_app(settings.web(None), runtime.intake, runtime.workflows, MemoryRing())
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    runtime.close()


def test_every_fixture_is_taken_by_the_running_web_and_twice_is_two_deliveries(acme: Cli, web: str) -> None:
    for source in ("github", "slack", "linear"):
        for event in fixtures.names(source):
            for _ in range(2):
                said = acme.json("trigger", source, event, "--url", web)
                assert said["status"] in (200, 202), (source, event)
                assert said.get("outcome", "ignored") == "ignored", (source, event, said)
    rows = acme.json("deliveries", "list", "--limit", "100")
    assert len(rows) == 2 * sum(len(fixtures.names(source)) for source in ("github", "slack", "linear"))
    named = {row["event"] for row in rows}
    assert {"pull_request", "issues", "ping", "app_mention", "command", "block_actions", "Comment"} == named
    assert {row["tenant_id"] for row in rows if row["event"] != "ping"} == {"acme"}


def test_a_body_of_ones_own_is_sent_signed(acme: Cli, web: str) -> None:
    body = '{"type":"invoice.paid","data":{"id":"in_1"}}'
    said = acme.json("trigger", "standard", "invoice.paid", "--body", "-", "--url", web, input=body)
    assert (said["status"], said["outcome"]) == (202, "ignored")
    assert acme("trigger", "github", "ping", "--set", "zen", "--url", web).exit_code == 2
    assert acme("deliveries", "show", said["delivery"], "--body", "--json").exit_code == 2
    assert "no fixture" in acme.json("trigger", "github", "nothing", "--url", web, code=1)["message"]
    gone = acme.json("trigger", "github", "ping", "--url", "http://127.0.0.1:9", code=1)
    assert "aswhom up" in gone["message"]


def test_a_webhook_secret_is_rotated_and_the_old_one_retired_beside_a_running_web(
    acme: Cli, web: str, tmp_path: Path
) -> None:
    made = tmp_path / "new"

    def answers() -> list[int]:
        """To a delivery under the old secret, and to one under the new."""
        now = datetime.now(UTC)
        body, content_type = fixtures.encoded("github", "ping", fixtures.fixture("github", "ping", now=now))
        statuses = []
        for secret in ("hunter2-hunter2", made.read_text().strip()):
            headers = {"Content-Type": content_type, **signature("github", "ping", body, Secret(secret), now=now)}
            answer = httpx.post(f"{web}/webhooks/github/github", content=body, headers=headers, trust_env=False)
            statuses.append(answer.status_code)
        return statuses

    made.write_text("not-yet-known-here")
    assert answers() == [202, 401]
    made.unlink()
    rotate = ("connections", "rotate-webhook-secret", "github", "--generate", str(made), "--yes")
    (old,) = acme.json(*rotate)["ending"]
    assert answers() == [202, 202]
    acme.json("connections", "retire-secret", old, "--yes")
    assert answers() == [401, 202]


def test_a_delivery_says_which_workflows_it_would_start_and_is_replayed_once(acme: Cli, web: str) -> None:
    labeled = acme.json("trigger", "github", "pull_request.labeled", "--url", web)["delivery"]
    opened = acme.json("trigger", "github", "pull_request.opened", "--url", web)["delivery"]
    assert acme("deliveries", "show", opened).output.endswith(f"`aswhom deliveries explain {opened}`\n")
    (fate,) = (one for one in acme.json("deliveries", "explain", opened) if one["workflow"] == "link_pull_request")
    assert (fate["would"], fate["reason"]) == ("nothing", "it is not switched on for tenant acme")
    acme.json("workflows", "enable", "link_pull_request", "--tenant", "acme")
    (fate,) = (one for one in acme.json("deliveries", "explain", opened) if one["workflow"] == "link_pull_request")
    assert fate["would"] == "start"
    assert "label_rules" in fate["config"]
    dry = acme.json("deliveries", "replay", "--since", "2020-01-01", "--dry-run")
    linking = {row["delivery"]: row["would"] for row in dry if row["workflow"] == "link_pull_request"}
    assert linking[opened] == "start"
    assert acme.json("jobs", "list") == []
    done = acme.json("deliveries", "replay", opened, labeled, "--yes")
    assert opened in {row["delivery"] for row in done}
    (shown,) = [acme.json("deliveries", "show", opened)]
    assert shown["outcome"] == "accepted"
    assert len(shown["jobs"]) == 1
    before = acme.json("jobs", "list")
    again = acme.json("deliveries", "replay", opened, labeled, "--yes")
    assert {row["would"] for row in again} == {"nothing"}
    assert [row["id"] for row in acme.json("jobs", "list")] == [row["id"] for row in before]


def test_failed_deliveries_are_those_that_a_person_must_look_at(acme: Cli, web: str) -> None:
    acme.json("trigger", "github", "pull_request.opened", "--url", web)
    odd = '{"action":"deleted","installation":{}}'
    bad = acme.json("trigger", "github", "installation", "--body", "-", "--url", web, input=odd)
    assert bad["outcome"] == "unrecognised"
    assert [row["id"] for row in acme.json("deliveries", "list", "--failed")] == [bad["delivery"]]
    misused = acme("deliveries", "replay")
    assert misused.exit_code == 2
    acme.json("trigger", "github", "pull_request.opened", "--url", web)
    many = acme.json("deliveries", "replay", "--tenant", "acme", "--limit", "1", code=1)
    assert "more than 1 deliveries" in many["message"]
    assert acme.json("deliveries", "replay", "--tenant", "acme", "--limit", "2", "--dry-run")


def test_a_body_of_ones_own_says_itself_whose_it_is(acme: Cli, web: str) -> None:
    acme.json("installations", "add", "github", "43", "acme")
    sends = ("trigger", "github", "pull_request.opened", "--url", web)
    assert "say which with --installation" in acme.json(*sends, code=1)["message"]
    body = json.dumps(
        fixtures.fixture("github", "pull_request.opened", now=datetime.now(UTC)) | {"installation": {"id": 43}}
    )
    sent = acme.json(*sends, "--body", "-", input=body)
    assert acme.json("deliveries", "show", sent["delivery"])["tenant_id"] == "acme"


def test_what_failed_is_replayed_and_what_was_merely_ignored_is_not(acme: Cli, web: str) -> None:
    acme.json("workflows", "enable", "link_pull_request", "--tenant", "acme")
    failed = acme.json("trigger", "github", "pull_request.opened", "--url", web)
    acme.json("jobs", "cancel", "--yes", *acme.json("deliveries", "show", failed["delivery"])["jobs"])
    acme.json("trigger", "github", "pull_request.opened", "--url", web)
    assert [job["state"] for job in acme.json("jobs", "list")] == ["queued", "cancelled"]
    left = acme.json("deliveries", "replay", "--failed", "--yes")
    assert {fate["would"] for fate in left} == {"nothing"}  # a person cancelled it
    assert [job["state"] for job in acme.json("jobs", "list")] == ["queued", "cancelled"]
    (fate,) = acme.json("deliveries", "replay", "--failed", "--cancelled", "--yes")
    assert (fate["delivery"], fate["workflow"], fate["would"]) == (failed["delivery"], "link_pull_request", "again")
    assert [job["state"] for job in acme.json("jobs", "list")] == ["queued", "queued"]
    assert "Nothing would be started" in acme("deliveries", "replay", "--failed", "--yes").output


def test_one_that_no_workflow_misreads_any_more_leaves_the_list_though_nothing_starts(acme: Cli, web: str) -> None:
    acme.json("workflows", "enable", "link_pull_request", "--tenant", "acme")
    taken = acme.json("trigger", "github", "pull_request.opened", "--url", web)["delivery"]
    assert acme.json("deliveries", "list", "--misread") == []
    with Installation.at(data_dir=acme.data_dir) as at:
        at.ledger.write(lambda c: c.execute(update(deliveries).values(left_out="misread")))
    assert [row["id"] for row in acme.json("deliveries", "list", "--misread")] == [taken]
    looked = acme.json("deliveries", "replay", "--misread", "--dry-run")
    (settled,) = [row for row in looked if row["would"] == "settle"]
    assert (settled["delivery"], settled["workflow"]) == (taken, None)
    assert "no workflow that is on would lack its job" in settled["reason"]
    unasked = acme("deliveries", "replay", "--misread")
    assert unasked.exit_code == 2
    assert "Take 1 deliveries off the list of the misread? Say so with --yes." in unasked.stderr
    assert [row["id"] for row in acme.json("deliveries", "list", "--misread")] == [taken]
    assert acme.json("deliveries", "replay", "--misread", "--yes") == [settled]
    assert acme.json("deliveries", "list", "--misread") == []


def test_what_keeps_one_on_the_list_of_the_misread_where_it_is_not_installed_is_named(acme: Cli, web: str) -> None:
    acme.json("workflows", "enable", "link_pull_request", "--tenant", "acme")
    taken = acme.json("trigger", "github", "pull_request.opened", "--url", web)["delivery"]
    on = {"tenant_id": "acme", "workflow": "of_a_later_version", "enabled": True, "config": {}}
    with Installation.at(data_dir=acme.data_dir) as at:
        at.ledger.write(lambda c: c.execute(insert(workflow_settings).values(on)))
        at.ledger.write(lambda c: c.execute(update(deliveries).values(left_out="misread")))
    for told in (acme.json("deliveries", "explain", taken), acme.json("deliveries", "replay", "--misread", "--yes")):
        (row,) = [row for row in told if row["workflow"] == "of_a_later_version"]
        assert (row["delivery"], row["would"]) == (taken, "nothing")
        assert "of_a_later_version is on for acme and not installed here" in row["reason"]
    assert [row["id"] for row in acme.json("deliveries", "list", "--misread")] == [taken]


def test_one_that_slack_signed_and_could_not_be_read_starts_by_a_version_that_reads_it(acme: Cli, web: str) -> None:
    send = partial(acme.json, "trigger", "slack", "app_mention", "--url", web)
    whole = {"type": "event_callback", "team_id": "T0000000007", "event_time": 1}
    events = {"odd": {"type": 7}, "gone": {"type": "app_uninstalled"}}
    mention = send()["delivery"]
    ids = {
        name: send("--body", "-", input=json.dumps({**whole, "event": event}))["delivery"]
        for name, event in events.items()
    }
    with Installation.at(data_dir=acme.data_dir) as at:  # as left by a version that could not read them
        at.write(lambda c: c.execute(update(deliveries).values(event="unreadable", outcome="unrecognised")))
    acme.json("workflows", "enable", "answer_mention", "--tenant", "acme")
    told = acme("deliveries", "replay", "--misread", "--yes")
    assert told.exit_code == 0, told.output
    assert f"left out: {ids['odd']} cannot be read by this version" in told.stderr
    assert f"left out: {ids['gone']} is a signal" in told.stderr
    shown = acme.json("deliveries", "show", mention)
    assert (shown["event"], shown["outcome"], len(shown["jobs"])) == ("app_mention", "accepted", 1)
    assert {row["id"] for row in acme.json("deliveries", "list", "--misread")} == {ids["odd"], ids["gone"]}


def test_one_that_slack_sent_again_and_was_read_then_is_settled_and_starts_nothing(acme: Cli, web: str) -> None:
    first = acme.json("trigger", "slack", "app_mention", "--url", web)["delivery"]
    with Installation.at(data_dir=acme.data_dir) as at:  # as left by a version that could not read it
        left = {"event": "unreadable", "outcome": "unrecognised", "delivery_id": "1599616881.aa"}
        at.write(lambda c: c.execute(update(deliveries).values(left)))
    acme.json("workflows", "enable", "answer_mention", "--tenant", "acme")
    body = acme("deliveries", "show", first, "--body").stdout
    again = acme.json("trigger", "slack", "app_mention", "--body", "-", "--url", web, input=body)
    assert len(again["jobs"]) == 1
    (told,) = acme.json("deliveries", "replay", "--misread", "--yes")
    assert (told["delivery"], told["would"]) == (first, "settle")
    assert again["delivery"] in told["reason"]
    assert [job["id"] for job in acme.json("jobs", "list")] == again["jobs"]
    assert acme.json("deliveries", "show", first)["outcome"] == "ignored"


def test_one_of_many_that_cannot_be_read_keeps_no_other_from_being_replayed(acme: Cli, web: str) -> None:
    odd = '{"action":"deleted","installation":{}}'
    bad = acme.json("trigger", "github", "installation", "--body", "-", "--url", web, input=odd)["delivery"]
    good = acme.json("trigger", "github", "pull_request.opened", "--url", web)["delivery"]
    acme.json("workflows", "enable", "link_pull_request", "--tenant", "acme")
    told = acme("deliveries", "replay", bad, good, "del_gone", "--yes")
    assert told.exit_code == 1, "not all of those that were named"
    assert f"left out: {bad} cannot be read by this version" in told.stderr
    assert "left out: there is no delivery del_gone" in told.stderr
    assert len(acme.json("deliveries", "show", good)["jobs"]) == 1


def of_two(acme: Cli, web: str) -> tuple[str, str]:
    """Two deliveries that came before the workflow was on, the older one first."""
    first, second = (acme.json("trigger", "github", "pull_request.opened", "--url", web)["delivery"] for _ in range(2))
    acme.json("workflows", "enable", "link_pull_request", "--tenant", "acme")
    return first, second


@pytest.mark.parametrize("fails", ["reconsider", "replay_delivery"])
def test_one_of_many_that_is_misconfigured_is_left_out_by_name(
    acme: Cli, web: str, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    bad, good = of_two(acme, web)
    failing_for(monkeypatch, fails, bad, Misconfigured("the sender's description is not valid"))
    told = acme("deliveries", "replay", "--since", "2020-01-01", "--yes")
    assert told.exit_code == 0, told.output
    assert f"left out: {bad}: the sender's description is not valid" in told.stderr
    assert len(acme.json("deliveries", "show", good)["jobs"]) == 1


@pytest.mark.parametrize("error", [Unavailable("the writer's turn did not come"), CommitUnknown("the line is cut")])
def test_what_was_replayed_before_the_ledger_failed_is_printed(
    acme: Cli, web: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    done, bad = of_two(acme, web)
    failing_for(monkeypatch, "replay_delivery", bad, error)
    told = acme("deliveries", "replay", "--since", "2020-01-01", "--yes")
    assert (told.exit_code, done in told.stdout, bad in told.stdout) == (1, True, False)
    assert str(error) in told.stderr
    assert len(acme.json("deliveries", "show", done)["jobs"]) == 1


def test_json_of_a_range_that_failed_half_way_is_one_document_with_what_was_done(
    acme: Cli, web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, bad = of_two(acme, web)
    failing_for(monkeypatch, "replay_delivery", bad, Unavailable("the writer's turn did not come"))
    told = acme.json("deliveries", "replay", "--since", "2020-01-01", "--yes", code=1)
    assert told["error"] == "Unavailable"
    assert {(row["delivery"], row["would"]) for row in told["done"]} == {(done, "start")}


def failing_for(monkeypatch: pytest.MonkeyPatch, name: str, id: str, error: Exception) -> None:
    """Let the command's function of that name raise *error* for one delivery."""
    real = getattr(deliveries_cli, name)

    def fail(*arguments: Any, **more: Any) -> Any:
        whose = arguments[0]["id"] if name == "reconsider" else arguments[1].id
        if whose == id:
            raise error
        return real(*arguments, **more)

    monkeypatch.setattr(deliveries_cli, name, fail)


def test_of_no_delivery_nothing_would_be_started(acme: Cli) -> None:
    told = acme("deliveries", "replay", "--since", "2020-01-01", "--until", "2020-01-02", "--dry-run").output
    assert told == "Nothing would be started: there is no such delivery\n"
    assert acme("deliveries", "list", "--outcome", "ingored").exit_code == 2


def test_what_came_at_until_or_later_is_not_replayed(acme: Cli, web: str) -> None:
    early, late = (acme.json("trigger", "github", "pull_request.opened", "--url", web)["delivery"] for _ in range(2))
    with Installation.at(data_dir=acme.data_dir) as at:
        moved = (
            deliveries.update().where(deliveries.c.id == early).values(received_at=datetime(2026, 1, 31, tzinfo=UTC))
        )
        at.write(lambda c: c.execute(moved))
    acme.json("workflows", "enable", "link_pull_request", "--tenant", "acme")
    assert acme.json("deliveries", "replay", "--until", "2026-01-31", "--yes") == []
    started = acme.json("deliveries", "replay", "--until", "2026-01-31T00:00:01Z", "--yes")
    assert {row["delivery"] for row in started} == {early}
    assert acme.json("deliveries", "show", late)["jobs"] == []


def test_a_delivery_whose_body_was_forgotten_keeps_no_other_from_being_replayed(acme: Cli, web: str) -> None:
    forgotten = acme.json("trigger", "github", "pull_request.opened", "--url", web)["delivery"]
    acme.json("workflows", "enable", "link_pull_request", "--tenant", "acme")
    acme.json("workflows", "disable", "link_pull_request", "--tenant", "acme")
    late = acme.json("trigger", "github", "pull_request.opened", "--url", web)["delivery"]
    acme.json("workflows", "enable", "link_pull_request", "--tenant", "acme")
    with Installation.at(data_dir=acme.data_dir) as at:
        at.write(lambda c: c.execute(deliveries.update().where(deliveries.c.id == forgotten).values(body=b"")))
    assert "was forgotten" in acme.json("deliveries", "replay", forgotten, "--yes", code=1)["message"]
    result = acme("deliveries", "replay", "--since", "2020-01-01", "--yes", "--json")
    assert result.exit_code == 0, result.output
    assert f"left out: the body of {forgotten} was forgotten" in result.stderr
    assert {row["delivery"] for row in json.loads(result.stdout) if row["workflow"] == "link_pull_request"} == {late}


def test_a_fixture_is_as_it_happened_now() -> None:
    document = fixtures.fixture("linear", "Comment", now=NOW)
    assert document["webhookTimestamp"] == int(NOW.timestamp() * 1000)
    assert document["createdAt"] == "2026-03-01T12:00:00.000Z"


def test_what_is_old_enough_is_forgotten_now(cli: Cli) -> None:
    with Installation(load(data_dir=cli.data_dir)) as at:
        house = House(at.ledger)
        house.build()
        house.accept(house.delivery("old"), now=datetime(2020, 1, 1, tzinfo=UTC))
        house.accept(house.delivery("new", text="new"))
    assert cli("db", "prune").exit_code == 2  # it asks first
    assert cli.json("db", "prune", "--yes")["bodies"] == 1
    assert sorted(row["delivery_id"] for row in cli.json("deliveries", "list")) == ["new", "old"]
    assert cli("db", "prune", "--yes").output == "forgotten: nothing was old enough\n"


def test_what_was_forgotten_is_told_where_something_else_could_not_be(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = datetime(2020, 1, 1, tzinfo=UTC)

    def alter(connection: Connection) -> None:
        with as_owner(connection):
            edit(connection, "first")

    with Installation(load(data_dir=cli.data_dir)) as at:
        house = House(at.ledger)
        house.build()
        house.accept(house.delivery("old"), now=old)
        for name in ("first", "last"):
            at.ledger.write(partial(record, kind="step.done", whom=AsWhom(tenant="acme"), id=name, at=old))
            assert Sealer(at.ledger, at.signer).run(now=old)
        at.ledger.write(alter)
    monkeypatch.setenv("ASWHOM_KEEP_AUDIT", "30")
    pruned = cli("db", "prune", "--yes")
    assert pruned.exit_code == 1
    told, why = pruned.stderr.splitlines()
    assert told == "forgotten: 1 bodies, 1 hashes of bodies"
    assert "its chain breaks at" in why
