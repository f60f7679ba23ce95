"""What ringing costs whoever rings: a web request must come back whatever the broker does."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from pipeline.broker.ring import LIE_AT_MOST, CeleryRing
from tests.celery.rig import bells, count, publisher
from tests.servers.valkey import Valkey
from tests.waiting import eventually

SOON = (
    10  # seconds: two of a stall, one for a sender, and a slow machine's; who is not bounded does not come back at all
)


def timed(ring: CeleryRing, *jobs: str) -> float:
    began = time.monotonic()
    ring.jobs(bells(*jobs))
    return time.monotonic() - began


def test_a_message_carries_an_id_and_says_whose_and_which_pattern(broker: Valkey, ring: CeleryRing) -> None:
    ring.jobs(bells("j1"))
    ring.revocations(["r1"])
    with broker.client() as client:
        job = json.loads(client.lpop("aswhom:service") or "")
        assert json.loads(client.lpop("aswhom:revocations") or "")["headers"]["task"] == "aswhom.revocation"
        assert client.keys("*") == []  # nothing else is left behind
    assert job["headers"]["task"] == "aswhom.job"
    assert (job["headers"]["tenant"], job["headers"]["pattern"]) == ("t1", "service")
    assert job["content-type"] == "application/json"


def test_many_bells_go_in_one_batch(broker: Valkey, ring: CeleryRing) -> None:
    with broker.client() as client:
        before = client.info("clients")["connected_clients"]
        reads = client.info("stats")["total_reads_processed"]
        took = timed(ring, *(f"j{n}" for n in range(2_500)))
        assert client.info("stats")["total_reads_processed"] - reads < 1_000
        assert client.llen("aswhom:service") == 2_500
        assert client.info("clients")["connected_clients"] <= before + 2
    assert took < SOON


def test_ringing_a_broker_that_refuses_returns_at_once(broker: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    failed, skipped = count("failed"), count("skipped")
    broker.kill()
    now = [100.0]
    with (
        closing(CeleryRing(publisher(broker.url), monotonic=lambda: now[0])) as ring,
        caplog.at_level(logging.INFO, logger="pipeline.broker.ring"),
    ):
        assert max(timed(ring, f"j{n}") for n in range(20)) < SOON
        assert count("failed") == failed + 1
        assert count("skipped") == skipped + 19
        broker.start()
        now[0] += 1  # the pause is over
        ring.jobs(bells("j"))
        assert "takes bells again" in caplog.text
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]  # once an outage, not once a bell


def test_bells_that_lie_in_a_queue_are_counted(broker: Valkey, ring: CeleryRing) -> None:
    assert ring.unheard("service") == 0, "there is no such queue yet"
    ring.jobs(bells("j1", "j2", "j3"))
    assert (ring.unheard("service"), ring.unheard("hybrid")) == (3, 0)
    broker.kill()
    assert ring.unheard("service") is None, "nobody can say, and to ring would fail as well"


def test_who_asks_a_broker_that_refuses_is_counted_as_one_failure_a_pause(broker: Valkey) -> None:
    """Housekeeping asks before it rings: without a count nothing would say that it cannot."""
    failed, now = count("failed"), [100.0]
    broker.kill()
    with closing(CeleryRing(publisher(broker.url), monotonic=lambda: now[0])) as ring:
        assert [ring.unheard("service") for _ in range(20)] == [None] * 20
        assert count("failed") == failed + 1
        now[0] += 1
        assert [ring.unheard("service") for _ in range(20)] == [None] * 20
        assert count("failed") == failed + 2
        broker.start()
        now[0] += 10
        assert ring.unheard("service") == 0
        assert ring.jobs(bells("j1")), "whose trial the answer was does not silence the bell that follows it"


def test_a_full_broker_that_answers_what_lies_there_stays_one_that_takes_no_bells(
    broker: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Else each of the dispatcher's ticks would write down what it rings for, and take it back."""
    with broker.client() as client:
        client.config_set("maxmemory", 1)
    now = [100.0]
    trials: list[float] = []
    with (
        closing(CeleryRing(publisher(broker.url), monotonic=lambda: now[0])) as ring,
        caplog.at_level(logging.INFO, logger="pipeline.broker.ring"),
    ):
        for _ in range(80):  # the dispatcher's ticks of 20 seconds
            if ring.unheard("service") is not None:
                trials.append(now[0] - 100)
                assert not ring.jobs(bells("j1"))
            now[0] += 0.25
    assert trials == [0, 0.5, 1.5, 3.5, 8.5, 13.5, 18.5]
    (outage,) = caplog.records
    assert outage.levelname == "WARNING"
    assert "(OutOfMemoryError: command not allowed when used memory > 'maxmemory'.)" in outage.message


def test_a_queue_that_the_broker_cannot_measure_is_no_outage_of_the_others(
    broker: Valkey, ring: CeleryRing, caplog: pytest.LogCaptureFixture
) -> None:
    failed = count("failed")
    with broker.client() as client:
        client.set("aswhom:capability", "somebody's")
        assert [ring.unheard("capability") for _ in range(3)] == [None] * 3
        assert ring.jobs(bells("j1"))
        (record,) = caplog.records
        assert ("capability" in record.message, "somebody's" in record.message) == (True, False)
        client.delete("aswhom:capability")
        assert ring.unheard("capability") == 0
    assert count("failed") == failed


def test_a_trial_that_finds_every_sender_in_use_silences_nobody(broker: Valkey) -> None:
    now = [100.0]
    broker.kill()
    with closing(CeleryRing(publisher(broker.url), monotonic=lambda: now[0])) as ring:
        assert not ring.jobs(bells("j1"))
        broker.start()
        now[0] += 1  # the pause is over
        producers = ring._open()
        in_use = [producers.acquire() for _ in range(producers.limit or 0)]
        assert not ring.jobs(bells("j2"))
        assert ring.unheard("service") is None
        for producer in in_use:
            producer.release()
        assert ring.jobs(bells("j3"))


def test_bells_of_revocations_that_nobody_hears_do_not_fill_the_broker(broker: Valkey, ring: CeleryRing) -> None:
    """An installation may do without the process that hears them: housekeeping advances revocations as well."""
    skipped = count("skipped")
    for chunk in range(3):  # of a signal that means very many accounts
        ring.revocations([f"r-{chunk}-{n}" for n in range(2_000)])
    ring.revocations(["later"])
    with broker.client() as client:
        assert client.llen("aswhom:revocations") == LIE_AT_MOST
        assert count("skipped") == skipped + 6_001 - LIE_AT_MOST
        client.lpop("aswhom:revocations", LIE_AT_MOST)
        ring.revocations(["new"])
        assert client.llen("aswhom:revocations") == 1
    broker.kill()
    ring.revocations(["r1", "r2"])
    assert count("skipped") == skipped + 6_001 - LIE_AT_MOST + 2


@pytest.mark.usefixtures("broker")
def test_senders_that_are_all_in_use_are_no_outage(ring: CeleryRing) -> None:
    """They may stall for a second, with bells that the broker takes: nobody else is to be silent for it."""
    ring.jobs(bells("warm"))
    failed, skipped = count("failed"), count("skipped")
    producers = ring._open()
    in_use = [producers.acquire() for _ in range(producers.limit or 0)]
    assert not ring.jobs(bells("j1", "j2"))
    assert ring.unheard("service") is None
    for producer in in_use:
        producer.release()
    assert ring.jobs(bells("j3"))
    assert (count("failed"), count("skipped")) == (failed, skipped + 2)


def test_ringing_after_a_restart_costs_no_bell(broker: Valkey, ring: CeleryRing) -> None:
    ring.jobs(bells("before"))
    broker.kill()
    broker.start()
    rung = count("rung")
    ring.jobs(bells("after"))
    assert count("rung") == rung + 1


@pytest.mark.parametrize("socket", ["tcp", "unix"])
@pytest.mark.parametrize("warm", [False, True])
def test_ringing_a_frozen_broker_stalls_once_and_then_skips(broker: Valkey, warm: bool, socket: str) -> None:
    app = publisher(broker.url if socket == "tcp" else broker.celery_socket_url)
    with closing(CeleryRing(app, monotonic=lambda: 100.0)) as ring:  # the pause after the stall does not end meanwhile
        if warm:
            ring.jobs(bells("warm"))
        broker.pause()
        failed, skipped = count("failed"), count("skipped")
        assert timed(ring, "first") < SOON
        for n in range(50):
            ring.jobs(bells(f"j{n}"))
        assert (count("failed"), count("skipped")) == (failed + 1, skipped + 50)


def test_thirty_two_threads_that_ring_a_frozen_broker_all_come_back(broker: Valkey, ring: CeleryRing) -> None:
    ring.jobs(bells("warm"))
    broker.pause()
    with ThreadPoolExecutor(32) as threads:
        assert max(threads.map(lambda n: timed(ring, f"j{n}"), range(32))) < SOON


def test_a_full_broker_fails_the_bell_and_not_the_request(broker: Valkey, ring: CeleryRing) -> None:
    with broker.client() as client:
        client.config_set("maxmemory", 1)
    failed = count("failed")
    ring.jobs(bells("j1"))
    ring.jobs(bells("j2", "j3"))
    assert count("failed") > failed


def test_a_ring_made_before_a_fork_works_in_the_child_and_in_the_parent(broker: Valkey, ring: CeleryRing) -> None:
    ring.jobs(bells("parent-before"))
    child = os.fork()
    if child == 0:
        try:
            ring.jobs(bells("child"))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    ring.jobs(bells("parent-after"))
    with broker.client() as client:
        assert client.llen("aswhom:service") == 3


def test_a_ring_that_was_closed_has_no_connection_and_opens_anew(broker: Valkey, ring: CeleryRing) -> None:
    with broker.client() as client:
        before = client.info("clients")["connected_clients"]
        ring.jobs(bells("j1", "j2"))
        assert client.info("clients")["connected_clients"] > before
        ring.close()
        eventually(lambda: client.info("clients")["connected_clients"] == before, what="its connections are gone")
        ring.jobs(bells("j3"))
        assert client.llen("aswhom:service") == 3


def test_concurrent_rings_lose_none(broker: Valkey, ring: CeleryRing) -> None:
    barrier = threading.Barrier(8)

    def many(thread: int) -> None:
        barrier.wait()
        for n in range(50):
            ring.jobs(bells(f"j-{thread}-{n}"))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(many, range(8)))
    with broker.client() as client:
        assert client.llen("aswhom:service") == 400
