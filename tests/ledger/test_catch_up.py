"""Catching up with GitHub: what failed while the web was away is asked for, and arrives once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, Table, select, update
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server

from deploy.sandbox.__main__ import SERVICES
from deploy.sandbox.github.app import create_github
from deploy.sandbox.journal import Journal
from deploy.sandbox.world import make_world
from identity.connections.installations import add_installation
from identity.connections.registry import add_connection, get_connection
from identity.connections.secrets import PRIVATE_KEY, WEBHOOK_SECRET, add_secret, seal_secret
from identity.errors import Unavailable
from identity.http.client import Client
from identity.secret import Secret
from identity.tables import connection_secrets, provider_connections
from pipeline.authoring.registry import Registry
from pipeline.deliveries.intake import Intake
from pipeline.duties.catch_up import OVERLAP, CatchUp
from pipeline.duties.github_deliveries import SIGNALS
from pipeline.revocation.tables import revocations
from pipeline.tables import deliveries
from tests.identity.stores import FailingStore
from tests.ledger.house import House
from tests.ledgers import MOSTLY_SQLITE
from tests.loopback import LOOPBACK
from tests.webhooks.parts import MemoryRing
from webhooks.app import create_app
from webhooks.settings import WebSettings
from webhooks.sources import github_signals

pytestmark = MOSTLY_SQLITE


class GithubAndWeb:
    """GitHub, our web with a switch, and the duty between them, all on one clock."""

    def __init__(self, house: House, http: Client) -> None:
        self.house = house
        self.now = datetime.now(UTC)
        self.ahead = timedelta()  # housekeeping's clock
        self.web_up = True
        self.too_large = False  # what it is sent
        self.web_forgets = False  # the web takes it, and its answer is lost
        self.ledger_forgets = False  # it is taken, and in no ledger: a backup of before was put back
        ports = dict.fromkeys(SERVICES, 9)
        nowhere = dict.fromkeys(("github", "linear", "slack"), "http://127.0.0.1:9")
        self.world = make_world(ports=ports, hooks=nowhere, callbacks=nowhere, now=self.now)
        self.catch_up = CatchUp(
            house.database, house.vault, http, clock=lambda: self.now + self.ahead, most=5, page=4, most_pages=4
        )
        self.github = ""

    def app(self) -> Any:
        """The web; while it is away it answers as one that cannot reach its ledger."""
        intake = Intake(self.house.database, self.house.vault, self.house.ids, clock=lambda: self.now)
        web = create_app(WebSettings(base_url="http://localhost"), intake, Registry([]), MemoryRing())

        def serve(environ: Any, start: Any) -> Any:
            if not self.web_up:
                start("503 Service Unavailable", [("Content-Length", "0")])
                return [b""]
            if self.too_large:
                start("413 Content Too Large", [("Content-Length", "0")])
                return [b""]
            if self.ledger_forgets:
                start("202 Accepted", [("Content-Length", "0")])
                return [b""]
            if self.web_forgets:
                body = list(web.wsgi_app(environ, lambda *_: lambda _: None))
                start("504 Gateway Timeout", [("Content-Length", "0")])
                return [b"" for _ in body]
            return web.wsgi_app(environ, start)

        return serve

    def order(self, path: str, **body: Any) -> list[int]:
        statuses: list[int] = httpx.post(f"{self.github}/_sandbox/{path}", json=body, verify=False).json()["statuses"]
        return statuses

    def open_pull(self) -> list[int]:
        return self.order("pulls", repo="acme/shop", author="ada", title="A change")

    def arrived(self) -> list[str]:
        rows = self.house.database.read(lambda c: c.execute(select(deliveries.c.event)).scalars().all())
        return sorted(rows)

    def move(self, url: str) -> None:
        """Where GitHub is looked for."""
        moved = update(provider_connections).values(api_url=url)
        self.house.database.write(lambda c: c.execute(moved).rowcount)

    def begins(self, table: Table) -> None:
        """What is in it is there since now."""
        self.house.database.write(lambda c: c.execute(update(table).values(created_at=self.now)).rowcount)

    def later(self, **by: float) -> int:
        """Some time passes, and the duty runs: how many it asked for."""
        self.now += timedelta(**by)
        return self.catch_up.run()


@pytest.fixture
def github_and_web(house: House) -> Iterator[GithubAndWeb]:
    with Client(policy=LOOPBACK) as http:
        made = GithubAndWeb(house, http)
        github = made.world["github"]
        sandbox = create_github(
            made.world, journal=Journal("github", None, clock=lambda: made.now), clock=lambda: made.now
        )
        either = DispatcherMiddleware(sandbox, {"/api/v3": sandbox})  # as github.com, and as an Enterprise Server
        servers = [make_server("127.0.0.1", 0, app, threaded=True) for app in (either, made.app())]
        made.github = f"http://127.0.0.1:{servers[0].server_port}"
        github["webhook_url"] = f"http://127.0.0.1:{servers[1].server_port}/webhooks/github/gh"
        threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in servers]
        for thread in threads:
            thread.start()

        def furnish(c: Any) -> None:
            c.execute(
                update(provider_connections).values(api_url=made.github, config={"app_id": str(github["app_id"])})
            )
            owner = get_connection(c, "gh")
            for name, text in (
                (PRIVATE_KEY, github["app_private_key_pem"]),
                (WEBHOOK_SECRET, github["webhook_secret"]),
            ):
                add_secret(c, seal_secret(house.vault, owner, id=name, name=name, secret=Secret(text), now=made.now))
            add_installation(c, owner="gh", external_id="9001", tenant="acme", now=made.now)

        house.database.write(furnish)
        yield made
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()


def test_what_failed_while_the_web_was_away_arrives_once_it_is_back_signals_too(github_and_web: GithubAndWeb) -> None:
    assert github_and_web.open_pull() == [202]
    github_and_web.web_up = False
    assert [github_and_web.open_pull(), github_and_web.open_pull()] == [[503], [503]]
    assert github_and_web.order("authorizations/revoke", user="ada", signal_only=True) == [503]
    assert github_and_web.later(seconds=1) == 3  # still away: they fail again
    assert github_and_web.arrived() == ["pull_request"]
    github_and_web.web_up = True
    assert github_and_web.later(seconds=30) == 0  # not before their time
    assert github_and_web.later(minutes=2) == 3
    assert github_and_web.arrived() == ["github_app_authorization", "pull_request", "pull_request", "pull_request"]
    assert [github_and_web.later(minutes=10), github_and_web.later(days=1)] == [0, 0]


def test_a_process_that_starts_looks_at_three_days_and_asks_for_nothing_that_arrived(
    github_and_web: GithubAndWeb,
) -> None:
    github_and_web.web_up = False
    github_and_web.open_pull()
    github_and_web.now += timedelta(days=2)
    github_and_web.web_forgets, github_and_web.web_up = True, True
    assert github_and_web.open_pull() == [504]  # it is in the ledger, whatever GitHub saw
    github_and_web.web_forgets = False
    assert github_and_web.later(hours=1) == 1
    assert github_and_web.arrived() == ["pull_request", "pull_request"]


def test_a_process_that_starts_asks_for_signals_that_a_restored_ledger_has_lost_and_for_no_work_that_was_done(
    github_and_web: GithubAndWeb,
) -> None:
    revoked = {"user": "ada", "signal_only": True}
    assert github_and_web.order("authorizations/revoke", **revoked) == [202]
    github_and_web.ledger_forgets = True
    assert [github_and_web.open_pull(), github_and_web.order("authorizations/revoke", **revoked)] == [[202], [202]]
    github_and_web.ledger_forgets = False
    assert github_and_web.arrived() == ["github_app_authorization"]
    assert github_and_web.later(minutes=1) == 1
    assert github_and_web.arrived() == ["github_app_authorization"] * 2
    assert github_and_web.later(minutes=5) == 0


def test_what_somebody_else_took_or_missed_before_the_connection_could_is_not_asked_for(
    github_and_web: GithubAndWeb,
) -> None:
    """An App is moved here: what it said meanwhile was of consents that may have been renewed since."""
    github_and_web.ledger_forgets = True
    github_and_web.order("authorizations/revoke", user="ada", signal_only=True)
    github_and_web.ledger_forgets, github_and_web.web_up = False, False
    github_and_web.order("authorizations/revoke", user="ada", signal_only=True)
    github_and_web.now += timedelta(days=1)
    github_and_web.web_up = True
    for table in (provider_connections, connection_secrets):
        github_and_web.begins(table)
    assert github_and_web.later(minutes=1) == 0
    assert github_and_web.arrived() == []


def test_a_signal_that_was_asked_for_again_is_followed_and_doubted_since_it_names_no_time(
    github_and_web: GithubAndWeb,
) -> None:
    github_and_web.web_up = False
    assert github_and_web.order("authorizations/revoke", user="ada", signal_only=True) == [503]
    github_and_web.web_up = True
    github_and_web.house.connect("acme", "acme.ada")
    assert github_and_web.later(minutes=1) == 1
    doubts = select(revocations.c.key, revocations.c.doubt)
    (row,) = github_and_web.house.database.read(lambda c: c.execute(doubts).all())
    assert tuple(row) == ("acme/gh/acme.ada", "open")


def test_a_signal_that_the_ledger_does_not_take_is_asked_for_once_a_process(github_and_web: GithubAndWeb) -> None:
    """Such as where the App's webhook leads to somebody else."""
    github_and_web.ledger_forgets = True
    github_and_web.order("authorizations/revoke", user="ada", signal_only=True)
    assert [github_and_web.later(hours=1) for _ in range(3)] == [1, 0, 0]


def test_a_signal_goes_before_older_deliveries_however_many_failed(github_and_web: GithubAndWeb) -> None:
    github_and_web.web_up = False
    github_and_web.open_pull()
    github_and_web.now += timedelta(seconds=1)
    github_and_web.order("authorizations/revoke", user="ada", signal_only=True)
    github_and_web.web_up = True
    github_and_web.catch_up._most = 1
    assert github_and_web.later(seconds=1) == 1
    assert github_and_web.arrived() == ["github_app_authorization"]


def test_a_signal_that_could_not_be_noted_keeps_no_other_from_being_asked_for_and_has_its_turn_next(
    github_and_web: GithubAndWeb,
) -> None:
    github_and_web.web_up = False
    github_and_web.order("authorizations/revoke", user="ada", signal_only=True)
    github_and_web.open_pull()
    github_and_web.web_up = True
    faults = {1: "commit lost", 2: "commit lost"}
    github_and_web.catch_up._store = FailingStore(github_and_web.house.database, faults)  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="confirm"):
        github_and_web.later(minutes=1)
    assert github_and_web.arrived() == ["pull_request"]
    assert github_and_web.later(seconds=1) == 1
    assert github_and_web.arrived() == ["github_app_authorization", "pull_request"]


def test_what_is_a_signal_in_githubs_list_is_what_is_read_as_one() -> None:
    assert set(github_signals._READERS) == SIGNALS


def test_what_github_keeps_no_longer_is_not_asked_for(github_and_web: GithubAndWeb) -> None:
    github_and_web.web_up = False
    github_and_web.open_pull()
    assert github_and_web.later(days=3, seconds=1) == 0


def test_an_enterprise_server_is_asked_for_a_week(github_and_web: GithubAndWeb) -> None:
    github_and_web.move(f"{github_and_web.github}/api/v3")
    github_and_web.web_up = False
    github_and_web.open_pull()
    assert github_and_web.later(days=6) == 1
    assert github_and_web.later(days=1, seconds=1) == 0


def test_requests_for_one_delivery_come_ever_more_slowly(github_and_web: GithubAndWeb) -> None:
    github_and_web.web_up = False
    github_and_web.open_pull()
    assert [github_and_web.later(minutes=minutes) for minutes in (1, 1, 1, 1, 3, 1)] == [
        1,
        1,
        0,
        1,
        0,
        1,
    ]  # 0, 1, 3, 7 …


def test_one_that_is_too_large_is_told_of_once_and_asked_for_again_once_longer_ones_may_be_let_in(
    github_and_web: GithubAndWeb, caplog: pytest.LogCaptureFixture
) -> None:
    github_and_web.too_large = True
    assert github_and_web.open_pull() == [413]
    assert [github_and_web.later(minutes=1), github_and_web.later(hours=1)] == [0, 0]
    github_and_web.later(hours=5)
    told = [one for one in caplog.records if getattr(one, "action", "") == "catch_up.too_large"]
    assert len(told) == 1
    assert "ASWHOM_MAX_BODY" in told[0].getMessage()
    github_and_web.too_large = False
    github_and_web.later(hours=6, minutes=1)
    assert github_and_web.arrived() == ["pull_request"]


def test_a_long_outage_is_caught_up_with_in_pieces_over_pages(github_and_web: GithubAndWeb) -> None:
    github_and_web.web_up = False
    for _ in range(12):
        github_and_web.open_pull()
    github_and_web.web_up = True
    assert [github_and_web.later(minutes=1) for _ in range(4)] == [5, 5, 2, 0]
    assert len(github_and_web.arrived()) == 12


def test_a_github_that_cannot_be_asked_is_told_of_and_tried_again(github_and_web: GithubAndWeb) -> None:
    github_and_web.web_up = False
    github_and_web.open_pull()
    github_and_web.move("http://127.0.0.1:9")
    with pytest.raises(Unavailable, match="gh: github cannot be reached"):
        github_and_web.later(minutes=1)
    github_and_web.move(github_and_web.github)
    github_and_web.web_up = True
    assert github_and_web.later(minutes=1) == 1
    assert github_and_web.arrived() == ["pull_request"]


def test_an_app_whose_key_cannot_be_opened_holds_up_no_other(github_and_web: GithubAndWeb) -> None:
    def furnish(c: Connection) -> None:
        other = get_connection(c, "gh")
        add_connection(c, replace(other, id="first"), now=github_and_web.now)
        for name in (PRIVATE_KEY, WEBHOOK_SECRET):
            id, text = f"first-{name}", Secret("text")
            sealed = seal_secret(
                github_and_web.house.vault, other, id=id, name=name, secret=text, now=github_and_web.now
            )
            add_secret(c, replace(sealed, connection="first"))  # it was sealed for another row

    github_and_web.house.database.write(furnish)
    github_and_web.web_up = False
    github_and_web.open_pull()
    github_and_web.web_up = True
    with pytest.raises(Unavailable, match="first: the sealed private_key"):
        github_and_web.later(minutes=1)
    assert github_and_web.arrived() == ["pull_request"]


def _refuse(github_and_web: GithubAndWeb, part: str, *, times: int, status: int) -> None:
    fault = {"mode": "status", "endpoint": part, "times": times, "status": status}
    httpx.post(f"{github_and_web.github}/_sandbox/faults", json=fault, verify=False).raise_for_status()


def test_a_delivery_that_github_refuses_to_send_holds_up_no_other(github_and_web: GithubAndWeb) -> None:
    github_and_web.web_up = False
    github_and_web.open_pull()
    github_and_web.now += timedelta(seconds=1)
    assert github_and_web.order("authorizations/revoke", user="ada", signal_only=True) == [503]
    github_and_web.web_up = True
    _refuse(github_and_web, "redeliver", times=1, status=404)
    with pytest.raises(Unavailable, match="github answered 404"):
        github_and_web.later(minutes=1)
    assert github_and_web.arrived() == ["pull_request"]
    assert github_and_web.later(minutes=2) == 1
    assert github_and_web.arrived() == ["github_app_authorization", "pull_request"]


def test_a_github_that_refuses_everything_is_left_alone_for_this_time(github_and_web: GithubAndWeb) -> None:
    github_and_web.web_up = False
    for _ in range(5):
        github_and_web.open_pull()
    github_and_web.web_up = True
    _refuse(github_and_web, "redeliver", times=100, status=500)
    with pytest.raises(Unavailable) as told:
        github_and_web.later(minutes=1)
    assert str(told.value).count("github answered 500") == 3


def test_a_list_that_does_not_come_holds_up_no_delivery_that_is_known(github_and_web: GithubAndWeb) -> None:
    github_and_web.web_up = False
    github_and_web.open_pull()
    assert github_and_web.later(minutes=1) == 1  # it fails again
    github_and_web.web_up = True
    _refuse(github_and_web, "list_deliveries", times=1, status=502)
    with pytest.raises(Unavailable, match="github answered 502"):
        github_and_web.later(minutes=2)
    assert github_and_web.arrived() == ["pull_request"]


def test_a_list_longer_than_one_turn_is_read_to_its_end_in_the_next_ones(github_and_web: GithubAndWeb) -> None:
    github_and_web.web_up = False
    assert github_and_web.order("authorizations/revoke", user="ada", signal_only=True) == [503]
    github_and_web.web_up = True
    for _ in range(34):  # more than two turns of four pages of four
        github_and_web.open_pull()
    assert [github_and_web.later(minutes=1) for _ in range(3)] == [0, 0, 1]
    assert "github_app_authorization" in github_and_web.arrived()


def test_a_list_that_breaks_off_is_begun_anew(github_and_web: GithubAndWeb) -> None:
    github_and_web.web_up = False
    github_and_web.open_pull()
    github_and_web.web_up = True
    for _ in range(20):
        github_and_web.open_pull()
    assert github_and_web.later(minutes=1) == 0
    github_and_web.move("http://127.0.0.1:9")
    with pytest.raises(Unavailable):
        github_and_web.later(minutes=1)
    github_and_web.move(github_and_web.github)
    assert [github_and_web.later(minutes=1), github_and_web.later(minutes=1)] == [0, 1]


def test_a_clock_far_ahead_of_githubs_is_told_of_and_passes_over_nothing(github_and_web: GithubAndWeb) -> None:
    """More than `OVERLAP` would pass over what comes meanwhile. GitHub takes no App's JWT that ends so late."""
    assert github_and_web.later(minutes=1) == 0
    github_and_web.web_up = False
    github_and_web.ahead = OVERLAP + timedelta(minutes=1)
    with pytest.raises(Unavailable, match="github answered 401"):
        github_and_web.later(minutes=1)
    github_and_web.open_pull()
    github_and_web.web_up, github_and_web.ahead = True, timedelta()
    assert github_and_web.later(minutes=1) == 1
    assert github_and_web.arrived() == ["pull_request"]
