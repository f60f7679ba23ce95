"""Ringing of doorbells: puts the ids of due work into Celery's queues.

Ringing is best effort and bounded: the work is in the ledger, the dispatcher repeats unanswered bells, and the caller
is serving a request. So nothing here raises when the broker is away. A frozen broker costs one stall of two seconds;
after that bells are skipped without touching the socket until a trial succeeds.
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
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import amqp
from amqp.exceptions import NotFound
from kombu import Connection
from kombu.exceptions import KombuError, LimitExceeded
from kombu.pools import ProducerPool
from kombu.transport import virtual
from redis.exceptions import RedisError, ResponseError

from identity.cooldown import Cooldown, Turn
from identity.sql.columns import in_microseconds
from pipeline import metrics
from pipeline.model import Bell

if TYPE_CHECKING:
    from pipeline.broker.celery import App

log = logging.getLogger(__name__)

JOB, REVOCATION = "aswhom.job", "aswhom.revocation"
REVOCATIONS = "revocations"

LIE_AT_MOST = 5_000  # bells of revocations, some 3 MB: the ledger does not limit these when nobody answers

_SENDERS = 4  # one connection each; a bell takes 0.2 ms of it
_WAIT = 1.0  # seconds for a free sender
_PAUSES = tuple(timedelta(seconds=seconds) for seconds in (0.5, 1, 2, 5))


class _Message(NamedTuple):
    """A Celery message (protocol 2), ready to be sent.

    It holds only what a worker needs: `as_task_v2` takes five times as long, and reveals which host and process rang.
    """

    queue: str
    body: str
    headers: dict[str, Any]


def _message(task: str, arguments: Sequence[object], queue: str, **headers: str) -> _Message:
    body = json.dumps([arguments, {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    identity = str(uuid.uuid4())
    needed = {"lang": "py", "task": task, "id": identity, "root_id": identity, "parent_id": None, "group": None}
    return _Message(queue, body, {**needed, **headers})


def _log_outage(error: BaseException) -> None:
    why = type(error).__name__
    if isinstance(error, amqp.ChannelError | ResponseError):
        why = f"{why}: {error}"  # the words of a broker that answers and refuses
    log.warning(
        "the broker does not take bells (%s): the dispatcher will ring again", why, extra={"action": "ring.outage"}
    )


class CeleryRing:
    """Implements `pipeline.model.Ring` over the broker of *app*. May be made before a fork and used after it."""

    def __init__(
        self,
        app: App,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        tell: Callable[[BaseException], None] = _log_outage,
    ) -> None:
        """*tell* is called with the error that begins an outage of the broker."""
        self._app = app
        # RabbitMQ drops a message for a queue that no worker has declared yet; Redis makes the list.
        self._declared = {} if app.settings.is_redis else {queue.name: [queue] for queue in app.settings.queues()}
        self._tell = tell
        self._cooldown = Cooldown(*_PAUSES, monotonic=monotonic)
        self._lock = threading.Lock()
        self._producers: ProducerPool | None = None
        self._errors: tuple[type[BaseException], ...] = (KombuError, RedisError, OSError)
        self._odd: set[str] = set()  # queues whose length the broker refuses to tell
        self._pid = 0

    def jobs(self, bells: Sequence[Bell]) -> bool:
        """Ring for jobs. The headers are for people and dashboards: a worker trusts only the job's row."""
        rung = ((b, None if b.rung_until is None else in_microseconds(b.rung_until)) for b in bells)
        sent = self._send(
            [_message(JOB, (b.job, until), b.pattern, tenant=b.tenant, pattern=b.pattern) for b, until in rung]
        )
        if sent:
            metrics.BELLS_AGAIN.inc(sum(b.again for b in bells))
        return sent

    def revocations(self, ids: Sequence[str]) -> None:
        """Ring for revocations while there is room; housekeeping advances the others."""
        if not ids:
            return
        lying = self.unheard(REVOCATIONS)
        room = 0 if lying is None else max(0, LIE_AT_MOST - lying)
        metrics.BELLS.labels("skipped").inc(len(ids[room:]))
        self._send([_message(REVOCATION, (revocation,), REVOCATIONS) for revocation in ids[:room]])

    def unheard(self, queue: str) -> int | None:
        """Return the number of bells in a queue, 0 for one that does not exist yet.

        None: the broker is away or busy, or refuses to tell for this queue. A refusal is no outage, since other queues
        may be in order. An answer does not end an outage: a full broker or a replica answers but takes no bells.
        """
        if (turn := self._cooldown.turn()) is None:
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
            self._note_failure(producers, turn, error)
            return None
        else:
            self._odd.discard(queue)
        self._cooldown.undecided(turn)
        return found

    def close(self) -> None:
        """Close the connections to the broker; a later ring opens new ones."""
        with self._lock:
            producers, self._producers = self._producers, None
            is_ours = self._pid == os.getpid()  # a parent's sockets are not ours to close
        if producers is not None and is_ours:
            _close(producers)

    def _send(self, messages: Sequence[_Message]) -> bool:
        if not messages:
            return True
        if (turn := self._cooldown.turn()) is None:
            metrics.BELLS.labels("skipped").inc(len(messages))
            return False
        producers = self._open()
        try:
            self._publish(producers, messages)
        except LimitExceeded:  # all senders are in use, which is not the broker's fault: a hanging one fails by itself
            self._cooldown.undecided(turn)
            metrics.BELLS.labels("skipped").inc(len(messages))
            return False
        except self._errors as error:
            metrics.BELLS.labels("failed").inc(len(messages))
            self._note_failure(producers, turn, error)
            return False
        metrics.BELLS.labels("rung").inc(len(messages))
        if self._cooldown.succeeded(turn):
            log.info("the broker takes bells again", extra={"action": "ring.recovered"})
        return True

    def _note_odd(self, queue: str, refused: ResponseError) -> None:
        """Log the refusal once, until the broker answers for that queue again."""
        if queue not in self._odd:
            self._odd.add(queue)
            log.error(
                "the broker does not say what lies in the queue %s (%s): see what has its key, and end that",
                queue,
                refused,
                extra={"action": "ring.odd_queue", "queue": queue},
            )

    def _note_failure(self, producers: ProducerPool, turn: Turn, error: BaseException) -> None:
        self._forget(producers)
        if self._cooldown.failed(turn):
            self._tell(error)

    def _publish(self, producers: ProducerPool, messages: Sequence[_Message]) -> None:
        producer: Any = producers.acquire(block=True, timeout=_WAIT)
        try:
            with producer.batch() if len(messages) > 1 else nullcontext():
                for message in messages:
                    # The nameless exchange delivers directly to the queue of that name, without bindings that could be
                    # lost.
                    producer.publish(
                        message.body,
                        exchange="",
                        routing_key=message.queue,
                        content_type="application/json",
                        content_encoding="utf-8",
                        headers=message.headers,
                        correlation_id=message.headers["id"],
                        declare=self._declared.get(message.queue),
                    )
        finally:
            producer.release()
            if self._producers is not producers:  # it was dropped meanwhile
                _close(producers, speechless=True)

    def _length(self, producers: ProducerPool, queue: str) -> int:
        connection: Any = producers.connections.acquire(block=True, timeout=_WAIT)
        try:
            if isinstance(connection.transport, virtual.Transport):
                # On Redis this declares nothing; with passive=True kombu would forget the key prefix.
                return int(connection.default_channel.queue_declare(queue).message_count)
            # A separate channel, because RabbitMQ closes one that asks for a missing queue. To connect by our limits
            # takes the default channel: `connection.channel()` would use kombu's own.
            with connection.default_channel.connection.channel() as channel:
                return int(channel.queue_declare(queue, passive=True).message_count)
        except NotFound:
            return 0
        finally:
            connection.release()
            if self._producers is not producers:  # it was dropped meanwhile
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
        """Close connections that may be dead; one in use elsewhere is closed by its user."""
        with self._lock:
            if self._producers is producers:
                self._producers = None
        _close(producers, speechless=True)


def _close(producers: ProducerPool, *, speechless: bool = False) -> None:
    """Close the idle connections. All are taken first, as one that was put back would be taken again.

    *speechless*: close without telling RabbitMQ, which may hang; otherwise each connection and channel waits for its
    answer.
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
            connection.release()  # a waiting caller then reopens it
