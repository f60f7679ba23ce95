"""What the receiver refuses, at the real web process, while real deliveries go on."""

from __future__ import annotations

import http.client
import json

from pipeline.states import JobState
from pipeline.tables import deliveries, jobs
from tests.faults.forged import newest_body, send
from tests.system.rig import System
from tests.waiting import PATIENCE


def status_of_announced(system: System, length: int) -> int:
    """The answer to the head of a request alone: nobody who sends a giant gets to send it."""
    connection = http.client.HTTPConnection("127.0.0.1", system.port, timeout=PATIENCE)
    connection.putrequest("POST", "/webhooks/github/github")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def test_bad_input_is_refused_by_its_kind_and_costs_no_good_delivery(sqlite_system: System) -> None:
    system = sqlite_system
    assert system.pull("acme/shop", "ada")["statuses"] == [202]
    document = newest_body(system)
    document["pull_request"]["title"] = "Another"
    good = json.dumps(document).encode()
    deep = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    asked = {
        "unsigned": send(system, good, x_hub_signature_256=""),
        "signed by another": send(system, good, secret="somebody else's"),
        "signature of garbage": send(system, good, x_hub_signature_256="sha256=" + "z" * 64),
        "sha1": send(system, good, x_hub_signature_256="sha1=" + "0" * 40),
        "garbage": send(system, b"\x00\xff garbage"),
        "no JSON": send(system, b"{"),
        "a list": send(system, b"[]"),
        "deep": send(system, deep),
        "a number that is none": send(system, b'{"a": NaN}'),
        "no event": send(system, good, x_github_event=""),
        "encoded": send(system, good, content_encoding="gzip"),
        "another content type": send(system, good, content_type="text/plain"),
        "unknown connection": send(system, good, path="github/nobody"),
        "unknown source": send(system, good, path="gitlab/github"),
        "another source's connection": send(system, good, path="slack/github"),
    }
    expected = dict.fromkeys(("unsigned", "signed by another", "signature of garbage", "sha1"), 401)
    expected |= dict.fromkeys(("garbage", "no JSON", "a list", "deep", "a number that is none", "no event"), 400)
    expected |= {"encoded": 415, "another content type": 415}
    expected |= dict.fromkeys(("unknown connection", "unknown source", "another source's connection"), 404)
    assert {name: answer.status_code for name, answer in asked.items()} == expected
    for name, answer in asked.items():
        assert answer.headers["content-type"].startswith("application/problem+json"), name
        assert b"Another" not in answer.content, name
    assert (system.count(deliveries), system.count(jobs)) == (1, 1)  # what was refused left no trace
    assert status_of_announced(system, 5_000_001) == 413
    # Of a shape nobody published, of an event nobody wants, and the good one: once, and again under another id.
    assert send(system, b'{"action": "opened"}').status_code == 202
    assert send(system, b'{"zen": "Keep it logically awesome."}', x_github_event="ping").status_code == 202
    first = send(system, good, x_github_delivery="one")
    again = [send(system, good, x_github_delivery=name) for name in ("one", "two")]
    assert {answer.status_code for answer in (first, *again)} == {202}
    assert [answer.json()["jobs"] for answer in again] == [first.json()["jobs"]] * 2
    assert system.count(jobs) == 2
    assert system.pull("acme/shop", "ada")["statuses"] == [202]
    system.start("worker")
    assert [job.state for job in system.settled()] == [JobState.DONE] * 3
