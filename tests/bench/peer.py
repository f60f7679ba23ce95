"""What Aswhom is measured beside: Flask, Celery, no ledger. One task, which calls the upstream; default settings.

`gunicorn tests.bench.peer:app` verifies the signature, notes the delivery id in Redis (SET NX), reads the document and
puts it in the queue, `:bare` verifies the signature alone; `celery --app tests.bench.peer worker` calls. A message that
the broker or a killed worker loses is lost.
"""

from __future__ import annotations

import hmac
import os
import time
from typing import Any

import httpx
from celery import Celery
from flask import Flask, Response, request
from kombu import Queue
from redis import Redis

from tests.bench.ground import WEBHOOK_KEY

BROKER = os.environ.get("PEER_BROKER_URL", "redis://127.0.0.1:1")
REMEMBERED = 3 * 24 * 3600  # seconds a delivery id is known: as long as GitHub redelivers

celery = Celery("peer", broker=BROKER, set_as_current=False)
redis = Redis.from_url(BROKER)
celery.conf.update(
    broker_transport_options={"global_keyprefix": "peer:"},
    task_queues=[Queue("peer", no_ack=True)],  # as ours: an ack more would be its own cost
    task_default_queue="peer",
    task_ignore_result=True,
    worker_concurrency=32,
)
http = httpx.Client(base_url=os.environ.get("PEER_UPSTREAM", ""), trust_env=False)
app = Flask("peer")
bare = Flask("bare")  # the most that any receiver under this server could reach: it verifies, and forgets


@celery.task(name="peer.call", shared=False)
def call(document: dict[str, Any]) -> None:
    http.post("/say", json={"text": document["text"]}).raise_for_status()


@celery.task(name="peer.call_as", shared=False)
def call_as(grant: str) -> None:
    """The same call in the name of *grant*, saying when the task began."""
    headers = {"authorization": f"Bearer {grant}", "x-began": str(time.time())}
    http.post("/say", json={"text": grant}, headers=headers).raise_for_status()


def is_signed() -> bool:
    """Whether the request's body is what its signature says."""
    signature = "sha256=" + hmac.digest(WEBHOOK_KEY.encode(), request.get_data(), "sha256").hex()
    return hmac.compare_digest(signature, request.headers.get("X-Hub-Signature-256", ""))


@bare.post("/webhooks/github/<connection>")
def verify(connection: str) -> Response:
    return Response(status=202 if is_signed() else 401)


@app.post("/webhooks/github/<connection>")
def receive(connection: str) -> Response:
    if not is_signed():
        return Response(status=401)
    if redis.set(f"peer:seen:{request.headers['X-GitHub-Delivery']}", 1, nx=True, ex=REMEMBERED):
        call.apply_async((request.get_json(),))
    return Response(status=202)
