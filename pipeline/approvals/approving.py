"""Approvals from the approver's side, on any page: the question, and the answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from identity.approval_links import ApprovalLink, read_approval_link, write_approval_link
from identity.errors import BadInput
from identity.keys.signing import Signer
from identity.principals import get_principal
from identity.sql.store import Store, write_idempotent
from pipeline.approvals.views import ApprovalView, approval
from pipeline.approvals.votes import Channel, Counted, NotCounted, Vote, vote
from pipeline.views import operator_queries
from pipeline.views.wording import started_by


@dataclass(frozen=True, kw_only=True)
class Offered:
    """The content of a link's page, and its person."""

    view: ApprovalView
    person: str
    good_for: timedelta
    started_by: str  # who or what started the job of the step
    accepted: datetime  # when that was
    why_not: str | None  # why the person cannot decide it


@dataclass(frozen=True, kw_only=True)
class NoLink:
    """A link that leads nowhere: *expired*, or not one of ours."""

    expired: bool


class Approving:
    """Makes links to approvals, shows what they lead to and takes the answers. Everything may raise Unavailable."""

    def __init__(self, store: Store, signer: Signer, *, base_url: str, lifetime: timedelta) -> None:
        self._store = store
        self._signer = signer
        self._base_url = base_url.rstrip("/")
        self._lifetime = lifetime

    def invite(self, id: str, principal: str, *, now: datetime) -> tuple[ApprovalLink, str]:
        """Return a link for *principal* only, and its full address.

        Raises BadInput if the approval does not await them.
        """
        view = self._store.read(lambda c: approval(c, id))
        if view is None or not view.awaits(principal):
            barred = None if view is None else view.barred.get(principal)
            raise BadInput(
                f"approval {id} is not waiting for {principal}{f', who {barred}' if barred else ''}: "
                f"`aswhom approvals show {id}` lists whom it waits for"
            )
        expires_at = min(view.expires_at, now + self._lifetime)
        link = write_approval_link(self._signer, approval=id, principal=principal, expires_at=expires_at)
        return link, f"{self._base_url}/approvals/{link.text}"

    def offer(self, text: str, *, now: datetime) -> Offered | NoLink:
        """Return the content of a link's page."""
        link = self._link(text, now)
        if isinstance(link, NoLink):
            return link
        view, who = self._store.read(lambda c: (approval(c, link.approval), get_principal(c, link.principal)))
        if view is None or who is None:
            return NoLink(expired=False)
        job, started = self._store.read(lambda c: (job := operator_queries.any_job(c, view.job), started_by(c, job)))
        return Offered(
            view=view,
            person=who.name,
            good_for=link.expires_at - now,
            started_by=started,
            accepted=job["created_at"],
            why_not=view.barred.get(who.id),
        )

    def answer(
        self, text: str, *, yes: bool, digest: str, now: datetime, came_from: str | None = None
    ) -> Counted | NotCounted | NoLink:
        """Count the answer of a link's person to what they were shown."""
        link = self._link(text, now)
        if isinstance(link, NoLink):
            return link
        view = self._store.read(lambda c: approval(c, link.approval))
        if view is None:
            return NoLink(expired=False)
        given = Vote(
            approval=view.id,
            tenant=view.tenant,
            principal=link.principal,
            yes=yes,
            digest=digest,
            channel=Channel.PAGE,
            said_as=f"link:{link.principal}",
            came_from=came_from,
        )
        return self.vote(given, now=now)

    def vote(self, given: Vote, *, now: datetime) -> Counted | NotCounted:
        """Count an answer whose person the caller has verified."""
        # The person's answer is the key: repeated after a lost commit, it counts as the first.
        return write_idempotent(self._store, partial(vote, given=given, now=now))

    def _link(self, text: str, now: datetime) -> ApprovalLink | NoLink:
        link = read_approval_link(self._signer, text)
        if link is None:
            return NoLink(expired=False)
        return NoLink(expired=True) if link.expires_at <= now else link
