"""What is asked in the system, and what its people say."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from identity.audit import Act
from pipeline.approvals.views import ApprovalView, approvals_page
from pipeline.approvals.votes import Channel, Counted, NotCounted, Vote
from pipeline.ledger.paging import Turn
from pipeline.policy.change import put_in_force
from tests.tasks.in_process_system import InProcessSystem

FOUR_EYES = """format = 1
[[rule]]
name = "four eyes"
when = { action = "salesforce.Update*" }
approval = { approvers = ["bob", "carol"], quorum = 2, expires_in = "1h" }
"""


def apply(system: InProcessSystem, text: str) -> None:
    change = partial(
        put_in_force, over=None, act=Act(audit_id=system.runtime.ids("aud"), by="cli:test", now=datetime.now(UTC))
    )
    system.runtime.database.write(lambda c: change(c, "acme", text))


def asked(system: InProcessSystem) -> ApprovalView:
    """The newest."""
    return system.runtime.database.read(lambda c: approvals_page(c, Turn(limit=1), tenant="acme", state=None))[1][0]


def say(system: InProcessSystem, who: str, *, yes: bool = True, digest: str | None = None) -> Counted | NotCounted:
    view = asked(system)
    given = Vote(
        approval=view.id,
        tenant="acme",
        principal=f"acme.{who}",
        yes=yes,
        digest=digest or view.digest,
        channel=Channel.CONSOLE,
        said_as=who,
    )
    return system.runtime.approving.vote(given, now=datetime.now(UTC))
