"""Gunicorn's settings: `gunicorn --config python:deploy.gunicorn deploy.wsgi:app`.

It uses threads, because a request waits for the ledger's commit. On SQLite it uses one process, whose writer groups the
writes of all threads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger

from deploy import build, logs, process
from deploy.environment import metrics_folder, name_connections, share_metrics
from deploy.metrics_ports import web_metrics_address


class logger_class(Logger):  # type: ignore[misc]  # noqa: N801 - the setting's name; Gunicorn has no types
    """Gunicorn's logger without the access log."""

    def access(self, *_: object) -> None:
        """Skip the formatting that Gunicorn does for each request even if nothing writes the line."""


_settings = process.settings_or_exit()
_shared = Path("/dev/shm")  # noqa: S108 - Gunicorn creates an unlinked file there, as it would in /tmp

bind = [_settings.listen]
if _metrics := web_metrics_address(_settings):  # shared by all processes: the one that answers adds up all counts
    bind.append(_metrics)
workers = _settings.web_processes or (1 if _settings.on_sqlite else 2)
worker_class = "deploy.web_worker.Worker"
threads = 32
timeout = 60
graceful_timeout = 25
# Longer than a proxy or load balancer reuses a connection (60 s with nginx and AWS): if we closed it just as the proxy
# sends a request, a delivery would be lost, which the proxy may not repeat. Idle connections occupy the poller but no
# thread. If a process has more than 500 of them, the longest idle ones are closed.
keepalive = 75
preload_app = False
worker_tmp_dir = str(_shared) if _shared.is_dir() else None  # on a slow disk, heartbeats would make workers look hung
control_socket_disable = True
proc_name = "aswhom-web"

limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 8190

accesslog = None  # a URL can contain an OAuth code or state
logconfig_dict = logs.configuration("web", format=_settings.log_format, level=_settings.log_level)

if workers > 1 and metrics_folder() is None:
    _folder = _settings.data_dir / "metrics" / "web"
    _folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for _left in _folder.glob("*.db"):
        _left.unlink()  # counters of earlier processes
    share_metrics(_folder)

# Checked in the master, where a failure ends the server with its own exit code. A failing worker would be restarted.
process.fit_or_exit(_settings)


def post_fork(server: Any, worker: Any) -> None:
    """Set up logging and naming in a new worker, before the application is imported."""
    logs.configure("web", format=_settings.log_format, level=_settings.log_level)
    name_connections("web")
    build.show()


def post_worker_init(worker: Any) -> None:
    """Exempt the imported application from garbage collection."""
    process.spare_what_is_loaded()


def child_exit(server: Any, worker: Any) -> None:
    """Drop an ended process's gauges."""
    if metrics_folder() is not None:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
