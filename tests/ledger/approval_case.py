"""A job of ada's whose step needs an approval, and the people who may give it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Row, select, update

from identity.model import PrincipalKind
from identity.policy.decision import Constraints, Decision
from identity.policy.rules import ApprovalNeed
from identity.principals import ensure_principal
from pipeline.approvals import requested
from pipeline.approvals.requested import Asked
from pipeline.approvals.tables import approvals as table
from pipeline.approvals.votes import Channel, Counted, NotCounted, Vote, vote
from pipeline.jobs.claims import ClaimedJob
from pipeline.jobs.intents import Intent, OpenOutcome
from pipeline.steps import openings
from tests.ledger.house import AS_ADA, House, intent_of

HOUR = timedelta(hours=1)
POLICY = 'format = 1\n[[rule]]\nname = "x"\nwhen = { action = "linear.*" }\ndeny = "no"\n'
FOUR_EYES = ApprovalNeed(rule="four eyes", quorum=1, approvers=frozenset({"bob", "acme.carol", "ada"}), expires_in=HOUR)
SHOWN: dict[str, Any] = {
    "does": "Refund a charge",
    "action": "stripe.Refund",
    "provider": "stripe",
    "resource": "charge ch_1",
    "amount": "900 EUR",
    "parameters": {
        "charge": "ch_1",
        "note": "<script>alert(1)</script>",
        "cents": 90_000,
        "statement_descriptor_suffix_for_customer": "a refund of what was charged twice",
    },
    "as_whom": {"id": "acme.service", "name": "the service", "kind": "service", "pattern": "service"},
    "on_behalf_of": {"id": "acme.ada", "name": "ada"},
    "agent": "billing",
    "workflow": "refund",
    "job": "job_1",
    "step": 1,
    "why": "named by the workflow: user-triggered, write",
    "through": "stripe-eu, https://api.stripe.example",
    "request_sha256": "d1" * 32,
}


# All of it, as it stands on a page whose reader has to say yes or no.
ON_A_PAGE = (
    "<bdi>Refund a charge</bdi> <code>stripe.Refund</code>",
    "<dd>charge ch_1</dd>",
    "900 EUR",
    '<bdi>the service</bdi> <span class="tag">service</span> with the tenant’s own access',
    "own access, nobody’s in person, at stripe",
    "<dt>Through</dt><dd>stripe-eu, https://api.stripe.example</dd>",
    "<dt>On behalf of</dt><dd>ada</dd>",
    "agent <bdi>billing</bdi> in <bdi>refund</bdi>",
    "<dt>Why as them</dt><dd>named by the workflow: user-triggered, write</dd>",
    f"<dt>SHA-256 of the request</dt><dd><code>{'d1' * 32}</code></dd>",
    "<pre>ch_1</pre>",
    "&lt;script&gt;",
    "<pre>90000</pre>",
)


# A sentence that no approver would see, and what a page must say of it.
UNSEEN = "".join(chr(0xE0100 + ord(letter)) for letter in "the CFO agreed")
UNSEEN_SPELT_OUT = json.dumps(UNSEEN).strip('"')
HIDING = {
    **SHOWN,
    "does": f"Refund{UNSEEN} a charge",
    "resource": f"charge{UNSEEN} ch_1",
    "amount": f"900{UNSEEN} EUR",
    "as_whom": {**SHOWN["as_whom"], "name": f"the{UNSEEN} service"},
    "on_behalf_of": {"id": "acme.ada", "name": f"ada{UNSEEN}"},
    "through": f"stripe{UNSEEN}-eu",
    "agent": f"billing{UNSEEN}",
    "workflow": f"refund{UNSEEN}",
    "why": f"named{UNSEEN} by the workflow",
}


def held_to(*needs: ApprovalNeed, policy: int = 0) -> Decision:
    return replace(AS_ADA, constraints=Constraints(approvals=needs), policy=policy)


class ApprovalCase:
    """A job of ada's whose step needs an approval, and the people who may give it."""

    def __init__(self, house: House, *needs: ApprovalNeed) -> None:
        self.house = house
        self.decision = held_to(*(needs or (FOUR_EYES,)))
        now = datetime.now(UTC)
        for tenant, name in (("acme", "bob"), ("acme", "carol"), ("globex", "bob")):
            make = partial(ensure_principal, kind=PrincipalKind.USER, name=name, tenant=tenant, now=now)
            house.database.write(partial(make, id=f"{tenant}.{name}"))
        self.job = house.claim(house.job())

    def intent(self, **more: Any) -> Intent:
        return intent_of(self.house, **{"job": self.job, "decision": self.decision, **more})

    def ask(self, *, shown: Mapping[str, Any] | None = None, **more: Any) -> Asked:
        ask = partial(requested.ask, id=self.house.ids("apr"), shown=shown or {"amount": "5 EUR"})
        return self.house.database.write(lambda c: ask(c, self.intent(**more)))

    @property
    def row(self) -> Row[Any]:
        """The newest."""
        newest = select(table).order_by(table.c.asked.desc()).limit(1)
        return self.house.database.read(lambda c: c.execute(newest).one())

    def say(
        self, who: str, *, yes: bool = True, digest: str | None = None, tenant: str = "acme", **more: Any
    ) -> Counted | NotCounted:
        """*more*: where it was said, and as whom."""
        row = self.row
        given = Vote(
            approval=row.id,
            tenant=tenant,
            principal=who,
            yes=yes,
            digest=row.digest if digest is None else digest,
            **{"channel": Channel.CLI, "said_as": "cli:test", **more},
        )
        return self.house.database.write(partial(vote, given=given, now=datetime.now(UTC)))

    def again(self) -> ClaimedJob:
        """The job is claimed by another run."""
        self.job = self.house.claim(self.job.id)
        return self.job

    def open(self, **more: Any) -> OpenOutcome:
        return self.house.database.write(partial(openings.open_attempt, intent=self.intent(**more)))

    def pass_time(self) -> None:
        late = datetime.now(UTC) - HOUR
        self.house.database.write(lambda c: c.execute(update(table).values(expires_at=late)))
