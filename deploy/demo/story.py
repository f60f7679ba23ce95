"""The demo's story: expiring tokens, an invoice that needs approval, and consent withdrawn while work is queued."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deploy.demo import people
from deploy.demo.evidence import disagreements, gathered
from deploy.demo.nights import night
from deploy.demo.provision import GITHUB, SALESFORCE, linear_of
from deploy.demo.sight import Sight
from deploy.demo.stage import Stage
from deploy.demo.telling import Teller
from identity.model import AccountKey
from pipeline.states import ENDED

ENGINEERS = {"acme": ("ada", "grace"), "globex": ("linus",), "initech": ("barbara",)}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The printed document, and the sandbox's disagreements with it."""

    document: dict[str, Any]
    disagreements: list[str]


def tell(stage: Stage, teller: Teller) -> Outcome:
    """Play all acts in order. Raise Unavailable if something does not happen in time."""
    sight = Sight(stage.runtime)
    acts = _Acts(stage, teller, sight)
    acts.connect()
    acts.pull_requests()
    acts.one_is_reviewed_and_merged()
    acts.a_token_ends_in_the_middle()
    acts.a_deal_is_won()
    acts.the_night_comes()
    acts.invoices_are_paid()
    acts.consent_is_withdrawn()
    acts.an_operator_revokes()
    acts.receipts_are_checked()
    return acts.reckoning()


class _Acts:
    def __init__(self, stage: Stage, teller: Teller, sight: Sight) -> None:
        self._stage = stage
        self._teller = teller
        self._sight = sight
        self._told: set[tuple[str, str]] = set()
        self._started = 0  # number of jobs so far
        self._merged = 0
        self._deal: Mapping[str, Any] = {}
        self._noted: list[Mapping[str, Any]] = []
        self._withdrawn: dict[str, Any] = {}
        self._ended: dict[str, Any] = {}
        self._verified: list[Mapping[str, Any]] = []
        self._replays: list[Mapping[str, Any]] = []

    def connect(self) -> None:
        self._teller.line(
            "People of three tenants connect GitHub and Linear on the consent pages; Ada also connects Salesforce."
        )
        for tenant, logins in ENGINEERS.items():
            for login in logins:
                for through in (GITHUB, linear_of(tenant)):
                    self._connect(tenant, login, through)
        self._connect("acme", "ada", SALESFORCE)

    def pull_requests(self) -> None:
        self._teller.line("Pull requests are opened: `bug` is filed as the engineer, `infra` as the platform.")
        self._merged = self._open("acme/shop", "ada", "bug")
        self._open("globex/site", "linus", "bug", "infra")
        self._open("initech/reports", "barbara", "infra")
        self._settle(3)

    def one_is_reviewed_and_merged(self) -> None:
        self._teller.line("Grace reviews and merges Ada's pull request, so its Linear issue is closed as Grace.")
        pull = f"pulls/acme/shop/{self._merged}"
        self._stage.order("github", f"{pull}/review_requests", reviewer="grace")
        self._settle(1)
        self._stage.order("github", f"{pull}/merge", by="grace")
        self._settle(1)

    def a_token_ends_in_the_middle(self) -> None:
        self._teller.line("Ada's GitHub token expires in the middle of a job. It is refreshed, and the step goes on.")
        # Linear answers slowly, and meanwhile Ada's token at GitHub expires.
        self._stage.order("linear", "faults", mode="delay", endpoint="issueCreate", seconds=1.0, times=1)
        self._open("acme/shop", "ada", "bug")
        self._until(self._filing_is_open, "the slow step")
        self._stage.order("auth", "expire", provider="github", user="ada")
        self._settle(1)

    def a_deal_is_won(self) -> None:
        self._teller.line(
            "Ada's deal is won while she is offline and her Salesforce token has expired: it is refreshed first."
        )
        (sales,) = [one for one in self._stage.world["salesforce"]["organizations"] if one["tenant"] == "acme"]
        (ada,) = [user["id"] for user in sales["users"] if user["name"] == "ada"]
        (row,) = [one for one in sales["opportunities"] if one["owner"] == ada]
        self._stage.order("auth", "expire", provider="salesforce", user="ada")
        deal = {"organization": sales["id"], "opportunity": row["id"], "owner": ada, "stage": "won"}
        self._stage.report("acme", "deal.changed", **deal)
        self._settle(1)
        kept = self._stage.sandbox("salesforce", "opportunities")
        (self._deal,) = [
            {
                "opportunity": one["Name"],
                "stage": one["StageName"],
                "by": "ada" if one["LastModifiedById"] == ada else "",
            }
            for one in kept
            if one["Id"] == row["id"]
        ]
        self._teller.table("At Salesforce", [self._deal])

    def the_night_comes(self) -> None:
        self._teller.line(
            "The nightly schedule of acme fires: subscriptions are compared with invoices, and differences noted."
        )
        with night(self._stage.runtime.database, "acme:billing_reconciliation", now=datetime.now(UTC)):
            self._settle(1)
        books = self._stage.sandbox("stripe", "subscriptions")["acme"]
        self._noted = [{"subscription": one["id"], **one["metadata"]} for one in books if one["metadata"]]
        self._teller.table("Noted at Stripe", self._noted)

    def consent_is_withdrawn(self) -> None:
        self._teller.line(
            "GitHub answers 503 with Retry-After: 30 to Grace's comment, after her issue is filed. Her job waits,"
        )
        busy = {"mode": "status", "status": 503, "headers": {"Retry-After": "30"}, "times": 100}
        self._stage.order("github", "faults", endpoint="/comments", **busy)
        self._open("acme/shop", "grace", "bug")
        self._until(lambda: self._queued("grace", 1), "a job of Grace's with an issue and no comment")
        self._teller.line(
            "and so do her next two. Then she withdraws her consent at GitHub: no call as her may follow."
        )
        for _ in range(2):
            self._open("acme/shop", "grace", "bug")
        queued = self._until(lambda: self._queued("grace", 3), "three queued jobs of Grace's")
        self._teller.table("Queued", queued)
        self._stage.order("github", "authorizations/revoke", user="grace")
        self._settle(4)  # her three, and one that explains at an issue why work stopped
        self._stage.forget_faults("github")
        self._withdrawn = self._until(self._compensated, "the receipt")
        self._teller.table("Cancelled", self._sight.jobs("cancelled"))
        self._teller.table("Compensated, as the platform", self._withdrawn["compensations"])

    def an_operator_revokes(self) -> None:
        self._teller.line(
            "An operator revokes Linus's GitHub account: his token ends at GitHub too, and the receipt says so."
        )
        key = f"globex/{GITHUB}/globex.linus"
        made, ran = self._stage.commands.revoke("account", key, reason="he left the company")
        self._teller.table("Typed", [ran])

        def ended() -> dict[str, Any] | None:
            receipt = self._sight.receipt(made)
            return receipt if receipt and receipt["provider"]["answer"] == "done" else None

        self._ended = self._until(ended, "the end of the token at GitHub")
        self._teller.table("At the provider", self._ended["provider"]["accounts"])

    def receipts_are_checked(self) -> None:
        self._teller.line(
            "An auditor verifies the receipt with the public key only. A copy without one cancelled job must fail."
        )
        commands = self._stage.commands
        _, self._ended, ended = commands.give_receipt(self._ended["revocation"])
        name, self._withdrawn, withdrawn = commands.give_receipt(self._withdrawn["revocation"])
        self._teller.table("Typed by the operator", [ended, withdrawn])
        commands.publish_key()
        altered = commands.give_altered(name, lambda receipt: receipt["cancelled_jobs"].pop())
        checked = [commands.verify(one) for one in (name, altered)]
        self._teller.table("Typed by the auditor, who has those files and nothing else", checked)
        self._verified = [ended, withdrawn, *checked]

    def invoices_are_paid(self) -> None:
        self._teller.line("Ada asks for two invoices to be paid: policy allows 480 euros; 12,500 need a second person.")
        for invoice in ("inv_1001", "inv_1002"):
            self._stage.report("acme", "payment.requested", invoice=invoice, requested_by="ada")
        approval = self._until(self._sight.awaited_approval, "the payment that waits for approval")
        self._until(lambda: len(self._payments()) == 1, "the payment that needs none")
        self._teller.line("Grace opens her link, reads what would be done, and says yes. Then it is paid, once.")
        people.approve(self._stage.runtime, approval, by="acme.grace", web=self._stage.web, now=datetime.now(UTC))
        self._until(lambda: len(self._payments()) == 2, "the payment that Grace approved")
        self._settle(2)
        self._teller.line(
            "A thief resends the overheard token: its step has ended (closed), and it fits one request (request)."
        )
        heard = self._stage.sandbox("invoices", "wire")[-1]
        url = self._stage.world["invoices"]["url"]
        self._replays = [people.replay(heard, url), people.replay(heard, url, target="/v1/invoices/inv_1003/pay")]
        self._teller.table("The thief's answers", self._replays)
        self._teller.table("Paid", self._payments())

    def reckoning(self) -> Outcome:
        self._until(self._sight.sealed, "the seal on the audit")
        fault = self._sight.audit_fault()
        document: dict[str, Any] = {
            "jobs": self._sight.jobs(),
            "steps": self._sight.steps(),
            "refreshes": self._sight.refreshes(),
            "cancelled_jobs": self._sight.jobs("cancelled"),
            "deal": self._deal,
            "noted": self._noted,
            "receipt": self._withdrawn,
            "provider_receipt": self._ended,
            "verified": self._verified,
            "payments": self._payments(),
            "approved_by": self._sight.approvers(),
            "replays": self._replays,
            "audit_verified": fault is None,
        }
        self._teller.line(
            "Every renewal of a token. A refresh token must be sent once: `presented` says how often it was."
        )
        self._teller.table("Refreshes", document["refreshes"])
        self._teller.table("Jobs", _by_pattern(document["jobs"]))
        self._teller.line(f"The audit's chain is {'whole' if fault is None else fault}.")
        return Outcome(document=document, disagreements=disagreements(gathered(self._stage, self._sight, document)))

    # Acting and observing

    def _open(self, repository: str, author: str, *labels: str) -> int:
        """Open a pull request, and return its number."""
        opened = self._stage.order(
            "github", "pulls", repo=repository, author=author, title="A change", labels=list(labels)
        )
        return int(opened["number"])

    def _connect(self, tenant: str, login: str, through: str) -> None:
        key = AccountKey(tenant=tenant, connection=through, principal=f"{tenant}.{login}")
        people.connect(self._stage.runtime, key, web=self._stage.web, login=login, now=datetime.now(UTC))

    def _payments(self) -> list[dict[str, Any]]:
        """Return the payments made, from the invoice service's own books."""
        found: list[dict[str, Any]] = self._stage.sandbox("invoices", "movements")
        return found

    def _filing_is_open(self) -> bool:
        return any(step["action"] == "linear.CreateIssue" and step["status"] == "open" for step in self._sight.steps())

    def _queued(self, login: str, number: int) -> list[dict[str, Any]] | None:
        """Return an engineer's queued jobs that state what they wait for, if there are at least *number*."""
        queued = [job for job in self._sight.jobs("queued") if job["user"] == f"acme.{login}" and job["reason"]]
        return queued if len(queued) >= number else None

    def _compensated(self) -> dict[str, Any] | None:
        receipt = self._sight.receipt()
        followed = receipt["compensations"] if receipt else ()
        return receipt if followed and all(one["outcome"] == "done" for one in followed) else None

    def _settle(self, more: int) -> None:
        """Wait until *more* further jobs were accepted and all have ended."""
        self._started += more

        def ended() -> bool:
            jobs = self._sight.jobs()
            return len(jobs) >= self._started and all(job["state"] in ENDED for job in jobs)

        self._until(ended, f"the end of {self._started} jobs")

    def _until(self, look: Callable[[], Any], what: str) -> Any:
        """Show each step as it closes, until *look* returns something true."""

        def see() -> Any:
            seen = look()
            rows = [row for row in self._sight.steps() if (row["step"], row["status"]) not in self._told]
            closed = [row for row in rows if row["status"] != "open"]
            self._told |= {(row["step"], row["status"]) for row in closed}
            self._teller.steps(closed)
            return seen

        return self._stage.until(see, what)


def _by_pattern(jobs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Count the jobs by pattern, workflow and state."""
    seen = Counter((job["pattern"], job["workflow"], job["state"]) for job in jobs)
    return [
        {"pattern": pattern, "workflow": workflow, "state": state, "jobs": number}
        for (pattern, workflow, state), number in sorted(seen.items())
    ]
