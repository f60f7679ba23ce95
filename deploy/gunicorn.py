"""Gunicorn's settings: `gunicorn --config python:deploy.gunicorn deploy.wsgi:app`.

Threads, because a request waits on the ledger's commit; on SQLite one process, whose writer then groups what all of
them write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger

from deploy import build, logs, process
from deploy.environment import metrics_folder, name_connections, share_metrics
from deploy.metrics_ports import web_metrics_address


class logger_class(Logger):  # type: ignore[misc]  # noqa: N801 - the setting's name; Gunicorn has no types
    """Gunicorn's, but for the log of access."""

    def access(self, *_: object) -> None:
        """Put no line together: with a configuration of logs Gunicorn would, for each request, and nobody writes it."""


_settings = process.settings_or_exit()
_shared = Path("/dev/shm")  # noqa: S108 - Gunicorn makes an unlinked file there, as it would in /tmp

bind = [_settings.listen]
if _metrics := web_metrics_address(_settings):  # of every process at once: whichever answers adds up what all counted
    bind.append(_metrics)
workers = _settings.web_processes or (1 if _settings.on_sqlite else 2)
worker_class = "deploy.web_worker.Worker"  # of threads
threads = 32
timeout = 60
graceful_timeout = 25
# Longer than a proxy or balancer keeps a connection that it may send the next request on (60 s with nginx and AWS):
# one that we close just then costs a delivery, which a proxy may not repeat. An idle one is in the poller, in no
# thread, and of more than 500 of them in a process those that are idle for the longest are closed.
keepalive = 75
preload_app = False
worker_tmp_dir = str(_shared) if _shared.is_dir() else None  # a heartbeat on a slow disk looks like a hung worker
control_socket_disable = True
proc_name = "aswhom-web"

limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 8190

accesslog = None  # an address can hold a code or a state
logconfig_dict = logs.configuration("web", format=_settings.log_format, level=_settings.log_level)

if workers > 1 and metrics_folder() is None:
    _folder = _settings.data_dir / "metrics" / "web"
    _folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for _left in _folder.glob("*.db"):
        _left.unlink()  # counters of processes that are gone
    share_metrics(_folder)

# Here, where it ends the server with its own exit code: a worker that could not start would be tried again.
process.fit_or_exit(_settings)


def post_fork(server: Any, worker: Any) -> None:
    """Before the application is imported."""
    logs.configure("web", format=_settings.log_format, level=_settings.log_level)
    name_connections("web")
    build.show()


def post_worker_init(worker: Any) -> None:
    """After the application is imported."""
    process.spare_what_is_loaded()


def child_exit(server: Any, worker: Any) -> None:
    """Gauges of a process that is gone no longer count."""
    if metrics_folder() is not None:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
