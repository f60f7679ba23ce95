"""The Celery application: two tasks that carry ids, and settings that were measured to matter.

A message is a doorbell. It authorizes nothing: a worker claims what the ledger says is due, so a lost, repeated, forged
or late message affects only latency.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

import amqp
from celery import Celery
from celery.loaders.app import AppLoader
from celery.signals import worker_init, worker_shutdown, worker_shutting_down
from kombu import Exchange, Queue

from identity.model import AccessPattern
from pipeline.broker.liveness import Hearing
from pipeline.broker.ring import JOB, REVOCATION, REVOCATIONS
from pipeline.broker.watchdog import TaskLimits
from pipeline.broker.worker_process import Process
from pipeline.model import Ring
from pipeline.schedules.beat import Schedules
from pipeline.schedules.ticks import Ticks

QUEUES: tuple[str, ...] = (*(pattern.value for pattern in AccessPattern), REVOCATIONS)


@dataclass(frozen=True, kw_only=True)
class BrokerSettings:
    """Connection settings for the broker. All processes on one database must agree on the prefix."""

    url: str = field(repr=False)  # may contain a password
    key_prefix: str = "aswhom:"
    socket_timeout: timedelta = timedelta(seconds=5)
    connect_timeout: timedelta = timedelta(seconds=3)
    health_check_interval: timedelta = timedelta(seconds=5)
    publish_timeout: timedelta = timedelta(seconds=2)
    publish_connect_timeout: timedelta = timedelta(seconds=1)
    beat_interval: timedelta = timedelta(seconds=1)
    transport_options: Mapping[str, Any] = field(default_factory=dict)  # such as Sentinel's master_name

    @property
    def is_redis(self) -> bool:
        """True for Redis or Valkey in any form (TLS, a unix socket, Sentinel); otherwise it is RabbitMQ."""
        return self.url.startswith(("redis", "sentinel"))

    def worker_options(self) -> dict[str, Any]:
        """Return Kombu's options for a consuming connection."""
        if not self.is_redis:
            return {"confirm_publish": True, **self.transport_options}
        return {
            "global_keyprefix": self.key_prefix,
            "priority_steps": [0],  # no priorities: one key per queue
            "queue_order_strategy": "round_robin",
            "client_name": "aswhom",
            "socket_keepalive": True,
            "socket_timeout": self.socket_timeout.total_seconds(),
            "socket_connect_timeout": self.connect_timeout.total_seconds(),
            "health_check_interval": int(self.health_check_interval.total_seconds()),
            **self.transport_options,
        }

    def publisher_options(self) -> dict[str, Any]:
        """Return Kombu's options for a connection that rings while somebody waits for an answer."""
        once = {"max_retries": 0, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1}
        if not self.is_redis:
            once["max_retries"] = self.url.count(";")  # each of several addresses once
            connect = self.publish_connect_timeout.total_seconds()
            return {**self.worker_options(), **once, "connect_timeout": connect, "on_open": self._bound}
        return {
            **self.worker_options(),
            **once,
            "socket_timeout": self.publish_timeout.total_seconds(),
            "socket_connect_timeout": self.publish_connect_timeout.total_seconds(),
        }

    def _bound(self, opened: amqp.Connection) -> None:
        """Limit the waits for a broker that hangs: for a confirm, or for a close.

        py-amqp's own settings do not: it repeats a read that `read_timeout` broke off, and its other waits have no
        limit.
        """
        if opened.sock is not None:
            opened.sock.settimeout(self.publish_timeout.total_seconds())

    def request(self) -> str:
        """Return the class of a task's request. On Redis nothing is acknowledged, as set by `no_ack` in `queues`."""
        return "pipeline.broker.consumer:UnacknowledgedRequest" if self.is_redis else "celery.worker.request:Request"

    def queues(self) -> list[Queue]:
        """Return one queue per access pattern, and one for revocations, which other work can never delay."""
        exchange = Exchange("aswhom", type="direct")
        if not self.is_redis:
            quorum = {"x-queue-type": "quorum"}
            return [Queue(name, exchange, routing_key=name, queue_arguments=quorum) for name in QUEUES]
        # A bell needs no redelivery, and on Redis an ack that fails during an outage would hold a slot for good.
        return [Queue(name, exchange, routing_key=name, no_ack=True) for name in QUEUES]


class JobWorker(Protocol):
    def handle(self, job_id: str, /, *, lapses: int | None) -> object:
        """Claim that job, another due job of its tenant, or nothing; run what was claimed.

        *lapses*, in microseconds since 1970, is the time from which it is that job or nothing.
        """
        ...

    @property
    def active_jobs(self) -> Mapping[int, str]:
        """The job that each thread has claimed, by the thread's ident; not always the one its bell named."""
        ...

    def spend(self, overdue: Collection[str], /) -> None:
        """Spend a run of each of these jobs, because of which the process is about to exit."""
        ...

    def hand_back(self, *, besides: Collection[str]) -> None:
        """Hand back this exiting process's claims without spending a run, except those of *besides*."""
        ...


class AnswersRevocations(Protocol):
    def answer(self, revocation_id: str, /, *, moved: Callable[[], None]) -> object:
        """Advance an open revocation as far as possible now, calling *moved* after each part.

        Safe to repeat.
        """
        ...


class OpenedRuntime(Protocol):
    """The open resources of a process that runs work: opened in it and closed by it."""

    @property
    def worker(self) -> JobWorker: ...

    @property
    def revoker(self) -> AnswersRevocations: ...

    @property
    def schedules(self) -> Schedules: ...

    @property
    def ring(self) -> Ring: ...

    def heartbeat(self, duty: str, error: str | None, /) -> None:
        """Store a heartbeat."""
        ...

    def in_commit(self) -> Mapping[int, float]:
        """Return the threads (by ident) that wait for an unlimited COMMIT, with its start on `time.monotonic()`."""
        ...

    def wind_down(self) -> None:
        """Let running jobs begin nothing further: the process was told to stop. Called by a signal handler."""
        ...

    def close(self) -> None: ...


class Loader(AppLoader):
    """A loader that ignores modules named in the environment."""

    def read_configuration(self, env: str = "") -> dict[str, Any]:
        return {}


class App(Celery):
    """A Celery application that knows its broker settings and how to open what its tasks need."""

    settings: BrokerSettings
    open_runtime: Callable[[], OpenedRuntime]
    hearing: Hearing
    ticks: Ticks
    listed = "worker"  # the entry of the process list it runs as, if that is one that opens a runtime
    backend_cls = "disabled"  # otherwise Celery would ask the environment first

    # By default Celery connects to the environment's CELERY_BROKER_URL, or its variants for reading and writing, and
    # passes that as *url* when it prepares RabbitMQ for delays.

    def connection(self, hostname: str | None = None, *words: Any, **options: Any) -> Any:
        return super().connection(hostname or self.settings.url, *words, **options)

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        return super().connection_for_read(self.settings.url, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        return super().connection_for_write(self.settings.url, **options)


def make_celery(
    settings: BrokerSettings,
    open_runtime: Callable[[], OpenedRuntime],
    *,
    limits: TaskLimits = TaskLimits(),  # noqa: B008 - frozen
) -> App:
    """Return the application for every process that rings, works or keeps the schedule. Nothing is opened yet."""
    app = App("aswhom", loader=Loader, set_as_current=False)
    app.settings, app.open_runtime, app.hearing, app.ticks = settings, open_runtime, Hearing(), Ticks()
    app.conf.update(configuration(settings))
    process = Process(app, limits)

    @app.task(name=JOB, shared=False, Request=settings.request())
    def job(job_id: str, lapses: int | None = None) -> None:
        process.job(job_id, lapses)

    @app.task(name=REVOCATION, shared=False, Request=settings.request())
    def revocation(revocation_id: str) -> None:
        process.revocation(revocation_id)

    app.finalize()
    for name in set(app.tasks) - {JOB, REVOCATION}:
        app.tasks.unregister(name)  # Celery brings nine tasks of its own that a forged message could run
    worker_init.connect(process.open, weak=False)
    worker_shutting_down.connect(process.wind_down, weak=False)
    worker_shutdown.connect(process.close, weak=False)
    return app


def configuration(settings: BrokerSettings) -> dict[str, Any]:
    """Return Celery's settings; each one was measured to matter, or closes a door."""
    return {
        "broker_url": settings.url,
        "broker_transport_options": settings.worker_options(),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # Redis refuses commands after a failover or with a full disk, which ends a stock worker.
        "broker_channel_error_retry": True,
        "broker_pool_acquire_timeout": 5,
        "broker_heartbeat": 10,  # seconds; RabbitMQ is given up after twice that. Celery's default is 120
        "task_queues": settings.queues(),
        "task_create_missing_queues": False,
        "task_default_queue": AccessPattern.SERVICE.value,
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_backend": None,
        "task_ignore_result": True,
        "task_acks_late": False,
        "worker_pool": "pipeline.broker.pool:TaskPool",
        "worker_consumer": "pipeline.broker.consumer:Consumer",
        "worker_concurrency": 32,
        "worker_disable_prefetch": settings.is_redis,  # Celery cannot for RabbitMQ: the consumer asks for one bell
        "worker_prefetch_multiplier": 1,
        "worker_enable_prefetch_count_reduction": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_remote_control": False,  # anyone who can write to the broker could stop workers with it
        "worker_send_task_events": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "beat_max_loop_interval": settings.beat_interval.total_seconds(),
    }
