"""The port of a process that is not a web server: Prometheus metrics, liveness and readiness."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer


class _OnIPv6(ThreadingWSGIServer):
    address_family = socket.AF_INET6


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: a line per scrape helps nobody."""


def _well() -> bool:
    return True


def serve(
    port: int,
    *,
    host: str = "127.0.0.1",
    is_well: Callable[[], bool] = _well,
    is_ready: Callable[[], bool] = _well,
) -> Callable[[], None]:
    """Answer `/metrics`, `/healthz` and `/readyz` on *port* from a thread, until the returned function is called.

    A process that is not well should be ended. One that is not ready has not started, and its predecessor must stay
    until it has.
    """
    exposed = make_wsgi_app()
    asked = {"/healthz": (is_well, b"not well\n"), "/readyz": (is_ready, b"not begun\n")}

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if (question := asked.get(environ["PATH_INFO"])) is None:
            scraped: Iterable[bytes] = exposed(environ, start_response)
            return scraped
        is_so, otherwise = question
        so = is_so()
        start_response("200 OK" if so else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"ok\n" if so else otherwise]

    kind = _OnIPv6 if ":" in host else ThreadingWSGIServer
    server = make_server(host.strip("[]"), port, answer, server_class=kind, handler_class=_Silent)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
