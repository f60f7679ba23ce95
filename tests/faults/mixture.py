"""Jobs of several kinds, as a day brings them: some as a person, some as the service, some that can do without her."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from deploy.sandbox.world import PEOPLE, TENANTS
from identity.audit import Act
from pipeline.desk.workflows import enable
from tests.faults.greeting import greet
from tests.system.rig import System
from tests.system.senders import event_until_taken

REPOSITORIES = {"acme": "acme/shop", "globex": "globex/site", "initech": "initech/reports"}
PULLS, MENTIONS = 4, 2


def switch_on_greeting(system: System) -> None:
    for tenant in TENANTS:
        config = {"channel": _channel(_workspace(system, tenant))}
        act = Act(audit_id=system.ids("aud"), by="admin:test", now=datetime.now(UTC))
        system.runtime.database.write(partial(enable, tenant=tenant, workflow=greet, act=act, config=config))


def begin_jobs(system: System, chance: random.Random) -> None:
    """Pull requests, each of which is tracked and greeted, and mentions in Slack, of anybody in any order."""
    asked = [*("pull" for _ in range(PULLS)), *("mention" for _ in range(MENTIONS))]
    chance.shuffle(asked)
    for what in asked:
        tenant = chance.choice(TENANTS)
        if what == "mention":
            _mention(system, tenant)
        else:
            author, label = chance.choice(PEOPLE[tenant]), chance.choice(("bug", "bug", "infra"))
            system.pull(REPOSITORIES[tenant], author, label)


def _mention(system: System, tenant: str) -> None:
    """Somebody in the tenant's workspace mentions the app."""
    workspace = _workspace(system, tenant)
    said = {"type": "app_mention", "user": "U1", "text": "hello", "ts": "1.000001", "channel": _channel(workspace)}
    event_until_taken(system, workspace["team_id"], said)


def _workspace(system: System, tenant: str) -> Mapping[str, Any]:
    (found,) = [one for one in system.world["slack"]["workspaces"] if one["name"] == tenant]
    workspace: Mapping[str, Any] = found
    return workspace


def _channel(workspace: Mapping[str, Any]) -> str:
    return str(workspace["channels"][0]["id"])
