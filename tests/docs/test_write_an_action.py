"""The actions of docs/howto/write-an-action.md are some that run, and do as the page says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from deploy.trial import Trial
from identity.errors import Misconfigured
from tests.deploy.trials import trial_of
from tests.docs.pages import blocks, page
from tests.servers.web import serving

KEY = "stock-canary"
PAGES = {
    "": {"items": [{"sku": "nuts", "left": 1}, {"sku": "bolts", "left": 9}], "next": "two"},
    "two": {"items": [{"sku": "../a/b?c", "left": 0}], "next": None},
}


class StockKeeper(ThreadingHTTPServer):
    """Honours idempotency keys, and closes the connection instead of answering as many orders as it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.loses = 0
        self.asked: list[str] = []  # requests, as they were written
        self.orders: dict[str, tuple[str, Any]] = {}  # by their keys: of which item, and how much

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: StockKeeper

    def do_GET(self) -> None:
        (after,) = parse_qs(urlsplit(self.path).query).get("after", [""])
        self._answer(PAGES[after])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _, _, _, sku, orders = self.path.split("/")
        assert orders == "orders"
        self.server.orders.setdefault(self.headers["Idempotency-Key"], (unquote(sku), body["count"]))
        self._answer({"id": "order-1"})

    def _answer(self, document: Any) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        if self.headers["Authorization"] != f"Bearer {KEY}":
            self.send_error(401)
            return
        if self.command == "POST" and self.server.loses:
            self.server.loses -= 1
            self.close_connection = True
            return
        answer = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def keeper() -> Iterator[StockKeeper]:
    server = StockKeeper()
    with serving(server):
        yield server


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory, keeper: StockKeeper) -> Iterator[Trial]:
    (code,) = blocks(page("howto/write-an-action.md"), "python")
    with trial_of(tmp_path_factory.mktemp("trial"), {"restock": code}) as made:
        made.own_upstream("oauth2", "acme", url=keeper.url, key=KEY, scopes=("stock:read", "stock:order"))
        made.enable("restock", "acme")
        yield made


def test_it_goes_page_by_page_and_orders_once_though_an_answer_is_lost(trial: Trial, keeper: StockKeeper) -> None:
    keeper.loses = 1
    made = trial.tick("restock", "acme")
    try:
        (job,) = [one for one in trial.settle("restock") if one.id == made]
    finally:
        keeper.loses = 0
    assert job.state == "done", job.reason
    assert keeper.asked == [
        "GET /v1/items?limit=100",
        "POST /v1/items/nuts/orders",
        "POST /v1/items/nuts/orders",
        "GET /v1/items?limit=100&after=two",
        "POST /v1/items/..%2Fa%2Fb%3Fc/orders",
    ]
    assert list(keeper.orders.values()) == [("nuts", 10), ("../a/b?c", 10)]


def test_a_tenant_without_a_connection_to_it_waits_with_a_reason(trial: Trial) -> None:
    trial.enable("restock", "globex")
    made = trial.tick("restock", "globex")
    (job,) = [one for one in trial.work("restock") if one.id == made]
    assert job.state == "queued"
    assert "tenant globex has no provider connection to oauth2" in job.reason
    trial.revoke("tenant", "globex")  # or it waits on in the tests that settle


def test_an_upstream_of_no_provider_is_refused(trial: Trial, keeper: StockKeeper) -> None:
    with pytest.raises(Misconfigured, match="no provider is named 'stock'"):
        trial.own_upstream("stock", "acme", url=keeper.url, key=KEY)
