"""The story: a token that ends in the middle, a consent withdrawn while work is queued, an invoice that needs a yes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deploy.demo import people
from deploy.demo.evidence import disagreements, gathered
from deploy.demo.provision import GITHUB, linear_of
from deploy.demo.sight import Sight
from deploy.demo.stage import Stage
from deploy.demo.telling import Teller
from identity.model import AccountKey
from pipeline.states import ENDED

ENGINEERS = {"acme": ("ada", "grace"), "globex": ("linus",), "initech": ("barbara",)}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is printed as a document, and where the sandbox's logs say otherwise."""

    document: dict[str, Any]
    disagreements: list[str]


def tell(stage: Stage, teller: Teller) -> Outcome:
    """All acts, in order. Raises Unavailable if something does not come about in time."""
    sight = Sight(stage.runtime)
    acts = _Acts(stage, teller, sight)
    acts.connect()
    acts.pull_requests()
    acts.one_is_reviewed_and_merged()
    acts.a_token_ends_in_the_middle()
    acts.consent_is_withdrawn()
    acts.an_operator_revokes()
    acts.invoices_are_paid()
    return acts.reckoning()


class _Acts:
    def __init__(self, stage: Stage, teller: Teller, sight: Sight) -> None:
        self._stage = stage
        self._teller = teller
        self._sight = sight
        self._told: set[tuple[str, str]] = set()
        self._merged = 0
        self._withdrawn: dict[str, Any] = {}
        self._ended: dict[str, Any] = {}
        self._replays: list[Mapping[str, Any]] = []

    def connect(self) -> None:
        self._teller.line("Engineers of three tenants connect GitHub and Linear on the real consent pages.")
        for tenant, logins in ENGINEERS.items():
            for login in logins:
                for through in (GITHUB, linear_of(tenant)):
                    key = AccountKey(tenant=tenant, connection=through, principal=f"{tenant}.{login}")
                    people.connect(self._stage.runtime, key, web=self._stage.web, login=login, now=datetime.now(UTC))

    def pull_requests(self) -> None:
        self._teller.line("Pull requests are opened: `bug` is filed as the engineer, `infra` as the platform.")
        self._merged = self._open("acme/shop", "ada", "bug")
        self._open("globex/site", "linus", "bug", "infra")
        self._open("initech/reports", "barbara", "infra")
        self._settle(3)

    def one_is_reviewed_and_merged(self) -> None:
        self._teller.line("Grace is asked to review Ada's, and merges it: its issue is done, as Grace.")
        pull = f"pulls/acme/shop/{self._merged}"
        self._stage.order("github", f"{pull}/review_requests", reviewer="grace")
        self._settle(4)
        self._stage.order("github", f"{pull}/merge", by="grace")
        self._settle(5)

    def a_token_ends_in_the_middle(self) -> None:
        self._teller.line("Ada's GitHub token ends in the middle of a job; a refresh, and the step goes on.")
        # Linear takes its time, and while it does, Ada's token at GitHub ends.
        self._stage.order("linear", "faults", mode="delay", endpoint="issueCreate", seconds=1.0, times=1)
        self._open("acme/shop", "ada", "bug")
        self._until(self._filing_is_open, "the slow step")
        self._stage.order("auth", "expire", provider="github", user="ada")
        self._settle(6)

    def consent_is_withdrawn(self) -> None:
        self._teller.line(
            "GitHub asks for half a minute's patience at the comment of Grace's first job, whose issue is filed;"
        )
        busy = {"mode": "status", "status": 503, "headers": {"Retry-After": "30"}, "times": 100}
        self._stage.order("github", "faults", endpoint="/comments", **busy)
        self._open("acme/shop", "grace", "bug")
        self._until(lambda: self._queued("grace", 1), "a job of Grace's with an issue and no comment")
        self._teller.line("so her next two are queued as well. Then she withdraws her consent at GitHub.")
        for _ in range(2):
            self._open("acme/shop", "grace", "bug")
        queued = self._until(lambda: self._queued("grace", 3), "three queued jobs of Grace's")
        self._teller.table("Queued", queued)
        self._stage.order("github", "authorizations/revoke", user="grace")
        self._settle(10)  # nine until here, and one that says at an issue why there is no more
        self._stage.forget_faults("github")
        self._withdrawn = self._until(self._compensated, "the receipt")
        self._teller.table("Cancelled", self._sight.jobs("cancelled"))
        self._teller.table("Compensated, as the platform", self._withdrawn["compensations"])

    def an_operator_revokes(self) -> None:
        self._teller.line("An operator revokes Linus at GitHub: his token ends there too, and the receipt says so.")
        key = AccountKey(tenant="globex", connection=GITHUB, principal="globex.linus")
        made = self._stage.revoke(key, reason="he left the company")

        def ended() -> dict[str, Any] | None:
            receipt = self._sight.receipt(made)
            return receipt if receipt and receipt["provider"]["answer"] == "done" else None

        self._ended = self._until(ended, "the end of the token at GitHub")
        self._teller.table("At the provider", self._ended["provider"]["accounts"])

    def invoices_are_paid(self) -> None:
        self._teller.line("Ada asks for two invoices to be paid: policy allows 480 euros; 12,500 need a second person.")
        for invoice in ("inv_1001", "inv_1002"):
            self._stage.report("acme", "payment.requested", invoice=invoice, requested_by="ada")
        approval = self._until(self._sight.awaited_approval, "the payment that waits for approval")
        self._until(lambda: len(self._payments()) == 1, "the payment that needs none")
        self._teller.line("Grace opens her link, reads what would be done, and says yes. Then it is paid, once.")
        people.approve(self._stage.runtime, approval, by="acme.grace", web=self._stage.web, now=datetime.now(UTC))
        self._until(lambda: len(self._payments()) == 2, "the payment that Grace approved")
        self._settle(12)
        self._teller.line("A thief has read the wire, and sends the token again: as it was, and to another invoice.")
        heard = self._stage.sandbox("invoices", "wire")[-1]
        url = self._stage.world["invoices"]["url"]
        self._replays = [people.replay(heard, url), people.replay(heard, url, target="/v1/invoices/inv_1003/pay")]
        self._teller.table("The thief's answers", self._replays)
        self._teller.table("Paid", self._payments())

    def reckoning(self) -> Outcome:
        self._until(self._sight.sealed, "the seal on the audit")
        fault = self._sight.audit_fault()
        receipt = self._withdrawn
        document: dict[str, Any] = {
            "jobs": self._sight.jobs(),
            "steps": self._sight.steps(),
            "refreshes": self._sight.refreshes(),
            "cancelled_jobs": self._sight.jobs("cancelled"),
            "receipt": receipt,
            "provider_receipt": self._ended,
            "payments": self._payments(),
            "approved_by": self._sight.approvers(),
            "replays": self._replays,
            "audit_verified": fault is None,
        }
        self._teller.table("Refreshes", document["refreshes"])
        shown = ("revocation", "source", "effective_at", "quiesced_at", "signature_holds")
        both = (receipt, self._ended)
        self._teller.table("Receipts, checked with the public key alone", [{n: r.get(n) for n in shown} for r in both])
        self._teller.line(f"The audit's chain is {'whole' if fault is None else fault}.")
        return Outcome(document=document, disagreements=disagreements(gathered(self._stage, self._sight, document)))

    # Hands and eyes

    def _open(self, repository: str, author: str, *labels: str) -> int:
        """A pull request's number."""
        opened = self._stage.order(
            "github", "pulls", repo=repository, author=author, title="A change", labels=list(labels)
        )
        return int(opened["number"])

    def _payments(self) -> list[dict[str, Any]]:
        """The money that has moved, by the service's own books."""
        found: list[dict[str, Any]] = self._stage.sandbox("invoices", "movements")
        return found

    def _filing_is_open(self) -> bool:
        return any(step["action"] == "linear.CreateIssue" and step["status"] == "open" for step in self._sight.steps())

    def _queued(self, login: str, number: int) -> list[dict[str, Any]] | None:
        """The jobs of an engineer's that say what they wait for, if they are that many."""
        queued = [job for job in self._sight.jobs("queued") if job["user"] == f"acme.{login}" and job["reason"]]
        return queued if len(queued) >= number else None

    def _compensated(self) -> dict[str, Any] | None:
        receipt = self._sight.receipt()
        followed = receipt["compensations"] if receipt else ()
        return receipt if followed and all(one["outcome"] == "done" for one in followed) else None

    def _settle(self, number: int) -> None:
        """Wait until that many jobs, at least, have been accepted and all have ended."""

        def ended() -> bool:
            jobs = self._sight.jobs()
            return len(jobs) >= number and all(job["state"] in ENDED for job in jobs)

        self._until(ended, f"the end of {number} jobs")

    def _until(self, look: Callable[[], Any], what: str) -> Any:
        """Tell each step as it closes, until *look* sees what it looks for."""

        def see() -> Any:
            seen = look()
            rows = [row for row in self._sight.steps() if (row["step"], row["status"]) not in self._told]
            closed = [row for row in rows if row["status"] != "open"]
            self._told |= {(row["step"], row["status"]) for row in closed}
            self._teller.steps(closed)
            return seen

        return self._stage.until(see, what)
