"""Rings doorbells: puts ids of due work into Celery's queues.

Best effort, and bounded: the work is in the ledger, the dispatcher rings again what was not heard, and whoever rings is
answering a request. So nothing here raises for a broker that is away. A frozen broker costs one stall of two seconds;
after that bells are skipped without touching the socket until one trial succeeds.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import amqp
from amqp.exceptions import ChannelError
from kombu import Connection
from kombu.exceptions import KombuError, LimitExceeded
from kombu.pools import ProducerPool
from kombu.transport import virtual
from redis.exceptions import RedisError, ResponseError

from identity.sql.columns import in_microseconds
from pipeline import metrics
from pipeline.model import Bell

if TYPE_CHECKING:
    from pipeline.broker.celery import App

log = logging.getLogger(__name__)

JOB, REVOCATION = "aswhom.job", "aswhom.revocation"
REVOCATIONS = "revocations"

LIE_AT_MOST = 5_000  # bells of revocations, some 3 MB: no ledger's mark holds them back where nobody hears them

_SENDERS = 4  # a connection each; a bell takes 0.2 ms of one
_WAIT = 1.0  # seconds for a free sender
_PAUSES = (0.5, 1.0, 2.0, 5.0)  # seconds of silence after the first, second … failure in a row


class _Message(NamedTuple):
    """A Celery message (protocol 2), ready to be sent.

    With what a worker needs and no more: `as_task_v2` takes five times as long, and tells which host and process rang.
    """

    queue: str
    body: str
    headers: dict[str, Any]


def _message(task: str, arguments: Sequence[object], queue: str, **headers: str) -> _Message:
    body = json.dumps([arguments, {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    identity = str(uuid.uuid4())
    needed = {"lang": "py", "task": task, "id": identity, "root_id": identity, "parent_id": None, "group": None}
    return _Message(queue, body, {**needed, **headers})


class Outage:
    """Whether the broker is worth trying: always while it is well, one trial after each pause while it is not."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._failures = 0
        self._silent_until = 0.0
        self._trial: int | None = None  # the thread that makes one

    def permits(self) -> bool:
        with self._lock:
            if self._failures == 0:
                return True
            if self._monotonic() < self._silent_until:
                return False
            self._silent_until = self._monotonic() + _PAUSES[-1]  # the others stay silent during this caller's trial
            self._trial = threading.get_ident()
            return True

    def failed(self) -> bool:
        """Note a failure; True if it begins an outage."""
        with self._lock:
            self._failures += 1
            self._trial = None
            self._silent_until = self._monotonic() + _PAUSES[min(self._failures, len(_PAUSES)) - 1]
            return self._failures == 1

    def undecided(self) -> None:
        """Note that nothing was learnt of bells: if this was the trial, the next caller's is one, too."""
        with self._lock:
            if self._trial == threading.get_ident():
                self._trial, self._silent_until = None, self._monotonic()

    def succeeded(self) -> bool:
        """Note a success; True if it ends an outage."""
        with self._lock:
            ended, self._failures, self._trial = self._failures > 0, 0, None
            return ended


def _log_outage(error: BaseException) -> None:
    log.warning(
        "the broker does not take bells (%s): the dispatcher will ring again",
        type(error).__name__,
        extra={"action": "ring.outage"},
    )


class CeleryRing:
    """Implements `pipeline.model.Ring` over the broker of *app*. It may be made before a fork and used after it."""

    def __init__(
        self,
        app: App,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        tell: Callable[[BaseException], None] = _log_outage,
    ) -> None:
        """*tell* of what begins an outage of the broker."""
        self._app = app
        self._tell = tell
        self._outage = Outage(monotonic)
        self._lock = threading.Lock()
        self._producers: ProducerPool | None = None
        self._errors: tuple[type[BaseException], ...] = (KombuError, RedisError, OSError)
        self._odd: set[str] = set()  # queues that the broker has something against
        self._pid = 0

    def jobs(self, bells: Sequence[Bell]) -> bool:
        """Ring for jobs. The headers are for people and dashboards: a worker trusts the job's row alone."""
        rung = ((b, None if b.rung_until is None else in_microseconds(b.rung_until)) for b in bells)
        sent = self._send(
            [_message(JOB, (b.job, until), b.pattern, tenant=b.tenant, pattern=b.pattern) for b, until in rung]
        )
        if sent:
            metrics.BELLS_AGAIN.inc(sum(b.again for b in bells))
        return sent

    def revocations(self, ids: Sequence[str]) -> None:
        """Ring for revocations to be advanced, while there is room: who is not rung for, housekeeping advances."""
        if not ids:
            return
        lying = self.unheard(REVOCATIONS)
        room = 0 if lying is None else max(0, LIE_AT_MOST - lying)
        metrics.BELLS.labels("skipped").inc(len(ids[room:]))
        self._send([_message(REVOCATION, (revocation,), REVOCATIONS) for revocation in ids[:room]])

    def unheard(self, queue: str) -> int | None:
        """How many bells lie in a queue: 0 in one that there is not yet.

        None: the broker is away, or busy, or will not say it of this one: that is no outage, since other queues may be
        in order. An answer ends no outage: one that is full, or a replica, answers and takes no bells.
        """
        if not self._outage.permits():
            return None
        producers = self._open()
        try:
            found: int | None = self._length(producers, queue)
        except LimitExceeded:
            found = None
        except ResponseError as refused:
            self._note_odd(queue, refused)
            found = None
        except self._errors as error:
            metrics.BELLS.labels("failed").inc()
            self._note_failure(producers, error)
            return None
        else:
            self._odd.discard(queue)
        self._outage.undecided()
        return found

    def close(self) -> None:
        """Close its connections to the broker; whoever rings afterwards opens them anew."""
        with self._lock:
            producers, self._producers = self._producers, None
            is_ours = self._pid == os.getpid()  # a parent's sockets are not ours to end
        if producers is not None and is_ours:
            _close(producers)

    def _send(self, messages: Sequence[_Message]) -> bool:
        if not messages:
            return True
        if not self._outage.permits():
            metrics.BELLS.labels("skipped").inc(len(messages))
            return False
        producers = self._open()
        try:
            self._publish(producers, messages)
        except LimitExceeded:  # all senders are in use, which is no fault of the broker's: one that hangs fails theirs
            self._outage.undecided()
            metrics.BELLS.labels("skipped").inc(len(messages))
            return False
        except self._errors as error:
            metrics.BELLS.labels("failed").inc(len(messages))
            self._note_failure(producers, error)
            return False
        metrics.BELLS.labels("rung").inc(len(messages))
        self._note_success()
        return True

    def _note_odd(self, queue: str, refused: ResponseError) -> None:
        """Told once, until the broker answers of it again."""
        if queue not in self._odd:
            self._odd.add(queue)
            log.error(
                "the broker does not say what lies in the queue %s (%s): see what has its key, and end that",
                queue,
                refused,
                extra={"action": "ring.odd_queue", "queue": queue},
            )

    def _note_failure(self, producers: ProducerPool, error: BaseException) -> None:
        self._forget(producers)
        if self._outage.failed():
            self._tell(error)

    def _note_success(self) -> None:
        if self._outage.succeeded():
            log.info("the broker takes bells again", extra={"action": "ring.recovered"})

    def _publish(self, producers: ProducerPool, messages: Sequence[_Message]) -> None:
        producer: Any = producers.acquire(block=True, timeout=_WAIT)
        try:
            with producer.batch() if len(messages) > 1 else nullcontext():
                for message in messages:
                    # The nameless exchange puts straight into the queue of that name: no bindings that could be lost.
                    producer.publish(
                        message.body,
                        exchange="",
                        routing_key=message.queue,
                        content_type="application/json",
                        content_encoding="utf-8",
                        headers=message.headers,
                        correlation_id=message.headers["id"],
                    )
        finally:
            producer.release()
            if self._producers is not producers:  # forgotten meanwhile
                _close(producers, speechless=True)

    def _length(self, producers: ProducerPool, queue: str) -> int:
        connection: Any = producers.connections.acquire(block=True, timeout=_WAIT)
        try:
            if isinstance(connection.transport, virtual.Transport):
                # This declares nothing to a Redis, and asked passively kombu forgets the prefix of its keys.
                return int(connection.default_channel.queue_declare(queue).message_count)
            with connection.channel() as channel:  # of its own: RabbitMQ closes one that asks for a queue there is not
                return int(channel.queue_declare(queue, passive=True).message_count)
        except ChannelError:
            return 0
        finally:
            connection.release()
            if self._producers is not producers:  # forgotten meanwhile
                _close(producers, speechless=True)

    def _open(self) -> ProducerPool:
        with self._lock:
            if self._producers is None or self._pid != os.getpid():  # sockets must not be shared with a parent
                connection: Connection = self._app.connection(transport_options=self._app.settings.publisher_options())
                self._errors = (
                    *connection.connection_errors,
                    *connection.channel_errors,
                    KombuError,
                    RedisError,
                    OSError,
                )
                self._producers = ProducerPool(connection.Pool(limit=_SENDERS), limit=_SENDERS)
                self._pid = os.getpid()
            return self._producers

    def _forget(self, producers: ProducerPool) -> None:
        """Close connections that may be dead; one that is in use elsewhere is closed by its user."""
        with self._lock:
            if self._producers is producers:
                self._producers = None
        _close(producers, speechless=True)


def _close(producers: ProducerPool, *, speechless: bool = False) -> None:
    """Close the connections that nobody uses. All are taken first: one that was put back would be taken again.

    *speechless*: without a word to RabbitMQ, which may hang; else its channels and each connection wait for its answer.
    """
    pool, idle = producers.connections, []
    with suppress(pool.LimitExceeded):
        while True:
            idle.append(pool.acquire(block=False))
    for connection in idle:
        try:
            if speechless and connection.connected and isinstance(connection.connection, amqp.Connection):
                connection.connection.collect()
            connection.close()
        finally:
            connection.release()  # somebody may be waiting for one, who then opens it anew
