"""An agent's tools, end to end: asked for over HTTP, carried out by a worker, seen at the upstreams as said."""

from __future__ import annotations

from typing import Any

import pytest

from identity.agents.api_keys import Role
from tests.docs import logs
from tests.system.agent import Agent
from tests.system.conftest import Start
from tests.system.rig import WORKFLOWS, System


@pytest.fixture
def sqlite_system(start_system: Start) -> System:
    system = start_system(ASWHOM_WORKFLOWS=",".join((*WORKFLOWS, "tasks.actions.github")))
    system.start("web", "worker", "revocations", "housekeeping")
    return system


def test_a_tool_runs_as_whom_its_identifier_says(sqlite_system: System) -> None:
    system = sqlite_system
    system.connect("acme", "ada")
    agent = Agent(system, Role.AGENT)
    pull = system.pull("acme/shop", "ada")
    channel = system.world["slack"]["workspaces"][0]["channels"][0]["id"]

    commented = agent.execute("github.Comment", "ada", repo="acme/shop", number=pull["number"], body="Seen")
    assert (commented.status_code, commented.json()["outcome"]) == (200, "done"), commented.text
    assert [entry["actor"] for entry in system.effects("github") if entry["token_kind"] != "app"] == ["ada"]
    is_followed_through_the_logs(system, commented)

    posted = agent.execute("slack__PostMessage", "acme", channel=channel, text="Hello")
    assert (posted.status_code, posted.json()["outcome"]) == (200, "done"), posted.text
    assert [message["text"] for message in system.sandbox("slack", "messages")] == ["Hello"]
    assert posted.json()["job"]["pattern"] == "service"

    refused = agent.execute("github.Comment", "acme", repo="acme/shop", number=pull["number"], body="As nobody")
    assert (refused.status_code, refused.json()["outcome"]) == (200, "refused"), refused.text
    assert "attributable" in refused.json()["reason"]


def test_an_issue_is_updated_as_the_user_and_its_event_comes_back(sqlite_system: System) -> None:
    system = sqlite_system
    system.connect("acme", "ada")
    agent = Agent(system, Role.AGENT)
    filed = agent.execute("github.CreateIssue", "ada", repo="acme/shop", title="Broken", body="It broke.").json()
    assert filed.get("outcome") == "done", filed
    number = filed["result"]["number"]
    updated = agent.execute(
        "github.UpdateIssue", "ada", repo="acme/shop", number=number, title="Mended", state="closed"
    ).json()
    assert (updated["outcome"], updated["job"]["pattern"]) == ("done", "delegated"), updated
    assert (updated["result"]["title"], updated["result"]["state"]) == ("Mended", "closed")
    (effect,) = system.effects("github", method="PATCH")
    assert (effect["actor"], effect["token_kind"]) == ("ada", "user")
    told = [(row["event"], row["action"], row["statuses"]) for row in system.sandbox("github", "deliveries")]
    assert told == [("issues", "edited", [202]), ("issues", "closed", [202])]


def is_followed_through_the_logs(system: System, answer: Any) -> None:
    """From the request of the agent to what the upstream calls ours, and back, without the ledger."""
    request, job = answer.headers["Request-Id"], answer.json()["job"]["id"]
    (asked,) = [line for line in system.logged("web") if line.get("request") == request]
    assert (asked["job"], asked["agent"]) == (job, "acme.bot")
    (listed,) = [fields for fields in logs.listed() if "operation" in fields]
    assert listed <= asked.keys()
    of_request = [line for line in system.logged("worker") if line.get("request") == request]
    assert {line["job"] for line in of_request} == {job}
    (ended,) = [line for line in of_request if line.get("action") == "attempt.effect"]
    ours = {entry["attempt"]: f"{entry['upstream']}-{entry['seq']}" for entry in system.sandbox("github", "log")}
    assert ended["step"]
    assert ended["upstream_request_id"] == ours[ended["attempt"]]


@pytest.mark.slow
def test_a_missing_consent_is_told_of_and_a_link_ends_the_wait(sqlite_system: System) -> None:
    system = sqlite_system
    agent = Agent(system, Role.AGENT)
    made = agent.ask("POST", "connect-links", json={"user": "ada", "connection": "github"})
    assert made.status_code == 201, made.text
    pull = system.pull("acme/shop", "ada")
    waits = agent.execute("github.Comment", "ada", repo="acme/shop", number=pull["number"], body="Later")
    assert (waits.status_code, waits.json()["outcome"]) == (202, "needs_consent"), waits.text
    system.connect("acme", "ada")
    job = waits.json()["job"]["id"]
    system.wait(lambda: agent.ask("GET", f"jobs/{job}").json()["state"] == "done", "the job's end")


@pytest.mark.slow
def test_a_revocation_by_the_api_stops_what_depends_on_it(sqlite_system: System) -> None:
    system = sqlite_system
    system.connect("acme", "ada")
    agent, admin = Agent(system, Role.AGENT), Agent(system, Role.ADMIN, "admin")
    pull = system.pull("acme/shop", "ada")
    revoked = admin.ask("POST", "revocations", json={"kind": "user", "key": "ada", "reason": "she left"})
    assert revoked.status_code == 201, revoked.text
    (of_ada,) = agent.ask("GET", "accounts?principal=ada&provider=github").json()["items"]
    assert of_ada["usable"] is False
    after = agent.execute("github.Comment", "ada", repo="acme/shop", number=pull["number"], body="Too late")
    assert after.json()["outcome"] == "needs_consent", after.text
    assert [entry for entry in system.effects("github") if entry["token_kind"] != "app"] == []
    system.wait(lambda: admin.ask("GET", f"revocations/{revoked.json()['id']}").json()["receipt"], "the receipt")
