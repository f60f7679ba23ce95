"""The Celery application: two tasks that carry ids, and the settings that were measured to matter.

A message is a doorbell. It authorises nothing: a worker claims what the ledger says is due, so a lost, repeated, forged
or late message changes nothing but latency.
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
from pipeline.broker.watchdog import Limits
from pipeline.broker.worker_process import Process
from pipeline.model import Ring
from pipeline.schedules.beat import Schedules
from pipeline.schedules.ticks import Ticks

QUEUES: tuple[str, ...] = (*(pattern.value for pattern in AccessPattern), REVOCATIONS)


@dataclass(frozen=True, kw_only=True)
class BrokerSettings:
    """How the broker is reached. Everyone on one database must agree on the prefix."""

    url: str = field(repr=False)  # it may hold a password
    key_prefix: str = "aswhom:"
    socket_timeout: timedelta = timedelta(seconds=5)
    connect_timeout: timedelta = timedelta(seconds=3)
    health_check_interval: timedelta = timedelta(seconds=5)
    publish_timeout: timedelta = timedelta(seconds=2)
    publish_connect_timeout: timedelta = timedelta(seconds=1)
    beat_interval: timedelta = timedelta(seconds=1)
    transport_options: Mapping[str, Any] = field(default_factory=dict)  # master_name of Sentinel, and the like

    @property
    def is_redis(self) -> bool:
        """Redis or Valkey in any guise (TLS, a unix socket, Sentinel); else RabbitMQ."""
        return self.url.startswith(("redis", "sentinel"))

    def worker_options(self) -> dict[str, Any]:
        """Kombu's options for a connection that consumes."""
        if not self.is_redis:
            return {"confirm_publish": True, **self.transport_options}
        return {
            "global_keyprefix": self.key_prefix,
            "priority_steps": [0],  # no priorities: one key a queue
            "queue_order_strategy": "round_robin",
            "client_name": "aswhom",
            "socket_keepalive": True,
            "socket_timeout": self.socket_timeout.total_seconds(),
            "socket_connect_timeout": self.connect_timeout.total_seconds(),
            "health_check_interval": int(self.health_check_interval.total_seconds()),
            **self.transport_options,
        }

    def publisher_options(self) -> dict[str, Any]:
        """Kombu's options for a connection that rings while somebody waits for an answer."""
        once = {"max_retries": 0, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1}
        if not self.is_redis:
            connect = self.publish_connect_timeout.total_seconds()
            return {**self.worker_options(), **once, "connect_timeout": connect, "on_open": self._bound}
        return {
            **self.worker_options(),
            **once,
            "socket_timeout": self.publish_timeout.total_seconds(),
            "socket_connect_timeout": self.publish_connect_timeout.total_seconds(),
        }

    def _bound(self, opened: amqp.Connection) -> None:
        """End what waits for a broker that hangs: a confirm, or a close.

        What py-amqp has of its own is no end: it repeats a read that `read_timeout` broke off, other waits have none.
        """
        if opened.sock is not None:
            opened.sock.settimeout(self.publish_timeout.total_seconds())

    def request(self) -> str:
        """The class of a task's request: on Redis nothing is acknowledged, as `no_ack` of `queues` says."""
        return "pipeline.broker.consumer:Request" if self.is_redis else "celery.worker.request:Request"

    def queues(self) -> list[Queue]:
        """One queue an access pattern, and the one that work can never hold up."""
        exchange = Exchange("aswhom", type="direct")
        if not self.is_redis:
            quorum = {"x-queue-type": "quorum"}
            return [Queue(name, exchange, routing_key=name, queue_arguments=quorum) for name in QUEUES]
        # A bell needs no redelivery, and on Redis an ack that fails in an outage would hold a slot for good.
        return [Queue(name, exchange, routing_key=name, no_ack=True) for name in QUEUES]


class JobWorker(Protocol):
    def handle(self, job_id: str, /, *, lapses: int | None) -> object:
        """Claim that job, or another due one of its tenant, or nothing; run what was claimed.

        *lapses*, in microseconds since 1970: from then on it is that job or nothing.
        """
        ...

    @property
    def active_jobs(self) -> Mapping[int, str]:
        """The job each thread has claimed, by the thread's ident: not always the one its bell named."""
        ...

    def spend(self, overdue: Collection[str], /) -> None:
        """The process is about to leave because of these jobs: each spends a run."""
        ...

    def hand_back(self, *, besides: Collection[str]) -> None:
        """The process leaves now: its claims go back unspent, but for those of these jobs."""
        ...


class AnswersRevocations(Protocol):
    def answer(self, revocation_id: str, /, *, moved: Callable[[], None]) -> object:
        """Take a revocation as far as it goes now, if anything of it is open, and call *moved* after each part of it.

        Safe to repeat.
        """
        ...


class OpenedRuntime(Protocol):
    """What a process that runs work holds open: opened in it, closed by it."""

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
        """Since when threads, by their idents, wait for a COMMIT that no limit ends; of `time.monotonic()`."""
        ...

    def wind_down(self) -> None:
        """The process was told to stop: what runs begins nothing further. Called by a signal's handler."""
        ...

    def close(self) -> None: ...


class Loader(AppLoader):
    """Which knows of no module that the environment names."""

    def read_configuration(self, env: str = "") -> dict[str, Any]:
        return {}


class App(Celery):
    """A Celery application that knows its broker settings and how to open what its tasks need."""

    settings: BrokerSettings
    open_runtime: Callable[[], OpenedRuntime]
    hearing: Hearing
    ticks: Ticks
    listed = "worker"  # which of the process list it runs in, as far as it is one of those that open a runtime
    backend_cls = "disabled"  # Celery would ask the environment first

    # Left to itself, Celery goes where the environment's CELERY_BROKER_URL says, or its like for reading and writing,
    # and names that as the *url* itself where it prepares RabbitMQ for delays.

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
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> App:
    """The application of every process that rings, works or keeps the schedule. Nothing is opened yet."""
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
        app.tasks.unregister(name)  # Celery brings nine of its own that a forged message could run
    worker_init.connect(process.open, weak=False)
    worker_shutting_down.connect(process.wind_down, weak=False)
    worker_shutdown.connect(process.close, weak=False)
    return app


def configuration(settings: BrokerSettings) -> dict[str, Any]:
    """Celery's settings: each one was measured to matter, or closes a door."""
    return {
        "broker_url": settings.url,
        "broker_transport_options": settings.worker_options(),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # Redis refuses commands after a failover, or with a full disk: that ends a stock worker.
        "broker_channel_error_retry": True,
        "broker_pool_acquire_timeout": 5,
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
        "worker_disable_prefetch": True,
        "worker_prefetch_multiplier": 1,
        "worker_enable_prefetch_count_reduction": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_remote_control": False,  # whoever can write to the broker could stop workers by it
        "worker_send_task_events": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "beat_max_loop_interval": settings.beat_interval.total_seconds(),
    }
