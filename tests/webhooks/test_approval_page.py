"""The page of an approval link, over a real ledger: what is shown, to whom, and whose answer counts."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import pytest
from sqlalchemy import select

from identity.approval_links import write_approval_link
from identity.audit.tables import audit
from identity.errors import BadInput
from identity.keys.signing import Signer
from identity.sql.store import CommitUnknown
from pipeline.approvals.approving import Approving
from pipeline.db.database import Database
from pipeline.states import ApprovalState
from tests.ledger.approval_case import HIDING, ON_A_PAGE, SHOWN, UNSEEN, UNSEEN_SPELT_OUT, ApprovalCase
from tests.ledger.house import House
from tests.ledgers import open_ledger
from tests.webhooks.parts import MemoryLedger, MemoryRing, registry
from webhooks.app import create_app
from webhooks.settings import WebSettings

OURS = "https://aswhom.example"

pytestmark = pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)


class Room:
    """An approval that was asked for, and the web that shows it."""

    def __init__(self, database: Database, shown: Mapping[str, Any] = SHOWN) -> None:
        house = House(database)
        house.build()
        self.case = ApprovalCase(house)
        self.case.ask(shown=shown)
        self.ahead = timedelta()
        self._signer = Signer.from_seed(bytes(32))
        self.approving = Approving(database, self._signer, base_url=OURS, lifetime=timedelta(minutes=15))
        app = create_app(
            WebSettings(base_url=OURS),
            MemoryLedger(),
            registry(),
            MemoryRing(),
            approver=self.approving,
            clock=lambda: datetime.now(UTC) + self.ahead,
        )
        self.client = app.test_client()

    def link(self, who: str = "acme.bob") -> str:
        _, url = self.approving.invite(self.case.row.id, who, now=datetime.now(UTC))
        return url.removeprefix(OURS)

    def old_link(self, who: str) -> str:
        """One that was made when nothing barred them yet."""
        until = datetime.now(UTC) + timedelta(minutes=15)
        link = write_approval_link(self._signer, approval=self.case.row.id, principal=who, expires_at=until)
        return f"/approvals/{link.text}"

    def answer(self, link: str, said: str = "yes", *, digest: str = "", **headers: str) -> Any:
        headers.setdefault("Origin", OURS)
        form = {"answer": said, "digest": digest or self.case.row.digest}
        return self.client.post(link, data=form, headers=headers)


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    with closing(open_ledger(ledger_url)) as opened:
        yield opened


@pytest.fixture
def room(database: Database) -> Room:
    return Room(database)


def test_no_fact_of_the_page_holds_what_cannot_be_seen(database: Database) -> None:
    room = Room(database, shown=HIDING)
    page = room.client.get(room.link()).text
    assert UNSEEN not in page
    assert page.count(UNSEEN_SPELT_OUT) == 11  # does is in the title too, and the agent in the first sentence


def test_what_can_be_seen_is_shown_as_it_is_also_within_what_holds_others(database: Database) -> None:
    seen, hidden = {"to": ["José", "雪"]}, {"to": ["a\u202eb", "é"]}
    room = Room(database, shown={**SHOWN, "parameters": {"seen": seen, "hidden": hidden}})
    page = html.unescape(room.client.get(room.link()).text)
    assert '<pre>{\n  "to": [\n    "José",\n    "雪"\n  ]\n}</pre>' in page
    assert '"a\\u202eb",\n    "\\u00e9"' in page


def test_an_approver_reads_all_of_it_and_the_answer_wakes_the_job(room: Room) -> None:
    link = room.link()
    page = room.client.get(link)
    assert page.status_code == 200
    asks = "<strong>bob</strong>: agent <strong>billing</strong>, working for <strong>acme</strong>, asks you to"
    for said in (
        *ON_A_PAGE,
        asks,
        "<dt>Started by</dt><dd>",
        "<bdi>acme.ada</bdi> asked for it, and whoever asks does not approve",
    ):
        assert said in page.text
    assert "<script>alert" not in page.text
    assert re.search(r"default-src 'none'", page.headers["Content-Security-Policy"])
    assert room.client.head(link).status_code == 204
    assert room.case.row.state == ApprovalState.OPEN  # to look answers nothing
    done = room.answer(link)
    assert done.status_code == 200
    assert "You approved it" in done.text
    assert room.case.row.state == ApprovalState.APPROVED
    assert room.case.house.row(room.case.job.id).state == "queued"
    assert room.answer(link).status_code == 200  # sent twice
    other = room.answer(link, "no")
    assert other.status_code == 409
    assert ">acme.bob has answered yes already.<" in other.text  # an id is not a word to begin a sentence with
    assert "This is approved" in room.client.get(link).text


def test_an_approvers_no_denies_the_request(room: Room) -> None:
    assert "You denied it" in room.answer(room.link(), "no").text
    assert room.case.row.state == ApprovalState.DENIED


def test_where_an_answer_came_from_is_in_the_audit_and_in_the_log(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    link = room.link()
    with caplog.at_level("INFO", logger="webhooks.approvals"):
        room.answer(link)
        room.answer(link, "no")
    told = [(vars(one)["action"], vars(one)["from"]) for one in caplog.records]
    assert told == [("approval.answered", "127.0.0.1"), ("approval.not_counted", "127.0.0.1")]
    (detail,) = room.case.house.database.read(
        lambda c: c.execute(select(audit.c.detail).where(audit.c.kind == "approval.answered")).scalars().all()
    )
    assert detail["from"] == "127.0.0.1"


def test_a_link_is_for_an_approver_who_has_not_answered(room: Room) -> None:
    for nobody in ("globex.bob", "acme.service", "acme.nobody"):
        with pytest.raises(BadInput, match="is not waiting for"):
            room.link(nobody)
    mine = room.link("acme.carol")
    room.answer(mine)
    with pytest.raises(BadInput, match="is not waiting for"):
        room.link("acme.carol")


def test_what_the_requester_is_given_a_link_to_does_not_count(room: Room) -> None:
    with pytest.raises(
        BadInput, match=r"not waiting for acme\.ada, who asked for it, and whoever asks does not approve"
    ):
        room.link("acme.ada")  # though the policy names her
    link = room.old_link("acme.ada")
    page = room.client.get(link).text
    assert "Nothing is asked of you: ada asked for it" in page
    assert 'name="answer"' not in page
    refused = room.answer(link)
    assert refused.status_code == 409
    assert "whoever asks does not approve" in refused.text
    assert room.case.row.state == ApprovalState.OPEN


def test_an_altered_a_strange_and_an_expired_link_lead_nowhere(room: Room) -> None:
    link = room.link()
    head, _, signature = link.rpartition(".")
    other = room.link("acme.carol").rpartition(".")[0]
    forged = ("B" if signature.startswith("A") else "A") + signature[1:]
    for wrong in (f"{head}.{forged}", f"{other}.{signature}", "/approvals/x", "/approvals/é.é", head):
        assert room.client.get(wrong).status_code == 404, wrong
        assert room.answer(wrong).status_code == 404, wrong
    room.ahead = timedelta(minutes=16)
    assert room.client.get(link).status_code == 410
    assert room.answer(link).status_code == 410
    assert room.case.row.state == ApprovalState.OPEN


def test_no_other_site_sends_an_answer_and_none_counts_for_what_was_not_shown(room: Room) -> None:
    link = room.link()
    assert room.answer(link, Origin="https://evil.example").status_code == 400
    assert room.answer(link, **{"Sec-Fetch-Site": "cross-site"}).status_code == 400
    assert room.answer(link, "perhaps").status_code == 400
    changed = room.answer(link, digest="0" * 64)
    assert changed.status_code == 409
    assert "look at it again" in changed.text
    assert room.case.row.state == ApprovalState.OPEN


class Broken:
    """An approver that fails for a reason nobody thought of."""

    def offer(self, text: str, *, now: datetime) -> NoReturn:
        raise RuntimeError("canary-77")

    def answer(self, text: str, *, yes: bool, digest: str, now: datetime, came_from: str | None) -> NoReturn:
        raise CommitUnknown("canary-77")


def test_a_fault_is_told_on_a_page(ledger_url: str) -> None:
    settings = WebSettings(base_url=OURS)
    client = create_app(settings, MemoryLedger(), registry(), MemoryRing(), approver=Broken()).test_client()
    failed = client.get("/approvals/x")
    assert (failed.status_code, "A fault of ours" in failed.text) == (500, True)
    unsure = client.post("/approvals/x", data={"answer": "yes"}, headers={"Origin": OURS})
    assert (unsure.status_code, "is not certain" in unsure.text) == (503, True)
    assert client.post("/approvals/x", data={"answer": "y" * (settings.max_body + 1)}).status_code == 413
    assert "canary" not in failed.text + unsure.text
