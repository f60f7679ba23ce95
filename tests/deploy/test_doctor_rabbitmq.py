"""`aswhom doctor` against a real RabbitMQ: it says which queues are missing, unserved or refused, and makes none."""

from __future__ import annotations

import pytest

from pipeline.broker.celery import QUEUES
from tests.deploy.conftest import Cli, told
from tests.servers.process import free_port
from tests.servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.rabbitmq


def test_a_broker_whose_every_queue_is_served_is_well(
    cli: Cli, own_rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASWHOM_BROKER_URL", own_rabbitmq.url)
    version = own_rabbitmq.control("version").strip()
    with own_rabbitmq.channel() as channel:
        for queue in set(QUEUES) - {"hybrid", "revocations"}:
            channel.basic_consume(queue)
        assert told(cli, "broker") == [
            ("wrong", "reachable, and no worker takes from hybrid, revocations: is one running?")
        ]
        for queue in ("hybrid", "revocations"):
            channel.basic_consume(queue)
        ((state, says),) = told(cli, "broker")
    assert state == "ok"
    assert says == (
        f"reachable, and workers take from every queue (RabbitMQ {version}); refreshes are serialized by the ledger"
    )


def test_a_missing_queue_is_told_and_not_made(
    cli: Cli, own_rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASWHOM_BROKER_URL", own_rabbitmq.url)
    with own_rabbitmq.channel() as channel:
        channel.queue_delete("hybrid")
    for _ in range(2):  # the first look has made none
        ((state, says),) = told(cli, "broker")
        assert state == "unknown"
        assert says.startswith("reachable, and no worker has declared hybrid yet: is one running?")
    assert "hybrid" not in own_rabbitmq.queues()


def test_each_refusal_is_told_and_no_password(
    cli: Cli, own_rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_rabbitmq.channel() as channel:
        channel.queue_delete("hybrid")
        channel.queue_declare("hybrid", durable=True, auto_delete=False)  # a classic one
    for url, says in (
        (
            own_rabbitmq.url_of(password="hunter2"),
            "reachable, and refuses what every worker asks for: (0, 0): (403) ACCESS_REFUSED",
        ),
        (own_rabbitmq.url_of(vhost="nobodys"), "vhost nobodys not found"),
        (own_rabbitmq.url_of("reader"), "access to exchange 'aswhom' in vhost 'aswhom' refused for user 'reader'"),
        (own_rabbitmq.url, "inequivalent arg 'x-queue-type' for queue 'hybrid' in vhost 'aswhom'"),
        (f"amqp://a:b@127.0.0.1:{free_port()}//", "not reachable (ConnectionRefusedError): see ASWHOM_BROKER_URL"),
    ):
        monkeypatch.setenv("ASWHOM_BROKER_URL", url)
        ((state, said),) = told(cli, "broker")
        assert (state, says in said) == ("wrong", True), said
        assert "hunter2" not in said
        assert own_rabbitmq.password not in said
