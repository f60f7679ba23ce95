"""Two tenants whose names cross: never one's token on a request of the other's."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial

from identity.principals import link_alias
from pipeline.states import JobState
from tests.faults.books import balance, requests
from tests.faults.forged import newest_body, send
from tests.system.rig import System


def test_crossed_names_never_cross_tokens(system: System) -> None:
    """globex's people have acme's logins among their aliases, and deliveries name the other's installation."""
    system.connect("acme", "ada")
    system.connect("globex", "linus")
    ids = {user["login"]: str(user["id"]) for user in system.world["github"]["users"]}
    installations = {one["account"]: one["id"] for one in system.world["github"]["installations"]}
    alias = partial(
        link_alias,
        tenant="globex",
        provider="github",
        external_id=ids["ada"],
        principal="globex.linus",
        login="ada",
        made_by="admin:test",
        now=datetime.now(UTC),
    )
    system.runtime.database.write(alias)
    crossed = []
    for repo, login, other in (("acme/shop", "ada", "globex"), ("globex/site", "linus", "acme")):
        assert system.pull(repo, login, "bug", "infra")["statuses"] == [202]
        document = newest_body(system)
        document["installation"]["id"] = installations[other]
        crossed.append(send(system, json.dumps(document).encode()))
        document["installation"]["id"] = 4711
        assert send(system, json.dumps(document).encode()).json()["outcome"] == "ignored"
    assert [answer.status_code for answer in crossed] == [202, 202]
    system.start("worker")
    jobs = {job.id: job for job in system.settled()}
    assert len(jobs) == 4
    for answer, tenant, user in zip(crossed, ("globex", "acme"), ("globex.linus", None), strict=True):
        (job,) = answer.json()["jobs"]
        assert (jobs[job].tenant_id, jobs[job].user_id) == (tenant, user)
        # Its own installation does not see the other's repository, and there is no other token to try.
        assert jobs[job].state == JobState.DEAD
    tenants = {row.id: row.tenant_id for row in system.attempts()}
    seen = [(tenants[entry["attempt"]], entry["tenant"]) for entry in requests(system)]
    assert set(seen) == {("acme", "acme"), ("globex", "globex")}
    balance(system)
