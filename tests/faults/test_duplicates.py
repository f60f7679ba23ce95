"""The same thing said twice, at once: by a sender that repeats itself, and by two deliveries about one pull request."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from pipeline.states import JobState
from pipeline.tables import deliveries
from tests.faults.books import balance, written_about
from tests.system.rig import AGAIN, System


def deliver(system: System, guids: list[str]) -> list[int]:
    """All of them at once, through the real web process, and each again while a busy ledger refuses it."""

    def one(guid: str) -> int:
        for _ in range(20):
            status: int = system.order("github", "deliver", delivery=guid)["status"]
            if status not in AGAIN:
                break
        return status

    with ThreadPoolExecutor(16) as senders:
        return list(senders.map(one, guids))


def test_two_deliveries_of_one_pull_request_at_once_file_one_issue(system: System) -> None:
    """`opened` and `labeled` say the same: one issue, one comment and one message a pull request, whoever is first,
    and however often the sender repeats each.
    """
    system.connect("acme", "ada")
    held: list[str] = []
    pulls: list[str] = []
    for _ in range(8):
        opened = system.pull("acme/shop", "ada", hold=True)
        labeled = system.order("github", f"pulls/acme/shop/{opened['number']}/labels", labels=["bug"], hold=True)
        held += opened["deliveries"] + labeled["deliveries"]
        pulls.append(f"acme/shop#{opened['number']}")
    system.start("worker")
    assert deliver(system, held * 3) == [202] * 48
    ended = system.settled()
    system.wait(lambda: {job.state for job in system.jobs()} == {JobState.DONE}, "that the second ones are done too")
    assert len(ended) == system.count(deliveries) == 16
    balance(system)
    assert written_about(system, pulls) == {"comments": Counter(pulls), "messages": Counter(pulls)}
    assert len(system.effects("linear")) == len(pulls)
