"""A product that does literally what docs/howto/connect-an-agent.md says."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from identity.model import AccountKey
from pipeline.jobs import awaited, claims
from pipeline.states import Wait
from tests.api.agents_api import AgentsApi
from tests.docs.pages import DOCS
from tests.ledgers import MOSTLY_SQLITE
from webhooks.api.job_models import Outcome

pytestmark = MOSTLY_SQLITE

PAGE = (DOCS / "howto" / "connect-an-agent.md").read_text(encoding="utf-8")
(LOOP,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


class Answer:
    def __init__(self, of: Any) -> None:
        self.status_code, self._of = of.status_code, of

    def json(self) -> Any:
        return self._of.json


class Http:
    """As the page wants it: a client with Aswhom's address and the agent's key."""

    def __init__(self, api: AgentsApi) -> None:
        self._api = api

    def get(self, path: str) -> Answer:
        return Answer(self._api.ask("GET", path))

    def post(self, path: str, *, json: Any, headers: dict[str, str]) -> Answer:
        return Answer(self._api.ask("POST", path, json={**json, "wait": 0}, headers=headers))


@pytest.fixture
def loop() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(LOOP, "connect-an-agent.md", "exec"), names)
    return names


def test_the_loop_of_the_page_answers_a_model_and_has_people_connect(
    sqlite_api: AgentsApi, loop: dict[str, Any]
) -> None:
    api, http, shown = sqlite_api, Http(sqlite_api), list[tuple[str, str]]()

    def connect(user: str, connection: str) -> None:
        shown.append((user, connection))

    def result(id: str, user: str = "ada", **arguments: object) -> Any:
        call = {"id": id, "name": "github__Say", "arguments": arguments}
        return loop["tool_result"](http, user, call, connect)

    assert [tool["function"]["name"] for tool in loop["tools"](http, "ada")] == ["github__Say"]
    (fault,) = result("c-1", txt="hello")["mend"][1:]
    assert fault == {"where": "parameters.txt", "why": "There is no such parameter: there are text"}
    assert result("c-2", text="hello")["outcome"] == result("c-2", text="hello")["outcome"] == "pending"
    (job,) = api.house.states()
    api.finish(job, result={"id": "7"})
    assert loop["look_again"](http, job, connect) == {"outcome": "done", "result": {"id": "7"}, "reason": None}
    assert result("c-2", text="hello")["result"] == {"id": "7"}
    assert (result("c-3", "zoe", text="hello")["outcome"], shown) == ("not called", [("zoe", "github")])

    job = api.execute("ada").json["job"]["id"]
    key, days = AccountKey(tenant="acme", connection="gh", principal="acme.ada"), timedelta(days=14)
    park = partial(claims.park, wait=Wait.CONSENT, waits_for=awaited.consent_of(key), due_in=days, expires_in=days)
    api.database.write(partial(park, job=api.house.claim(job), reason="needs the consent"))
    assert loop["look_again"](http, job, connect)["outcome"] == "needs_consent"
    assert shown[1:] == [("acme.ada", "gh")]


def test_the_page_says_what_each_outcome_means() -> None:
    rows = re.findall(r"^\| (`[^|]*) \|", PAGE, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(Outcome)
