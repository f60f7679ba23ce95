"""What a process that is no web server answers on its own port: Prometheus, and whoever asks whether it is well."""

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
        """A line for each scrape helps nobody."""


def _well() -> bool:
    return True


def serve(port: int, *, host: str = "127.0.0.1", is_well: Callable[[], bool] = _well) -> Callable[[], None]:
    """Answer `/metrics` and `/healthz` on *port*, from a thread, until what is returned is called."""
    exposed = make_wsgi_app()

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/healthz":
            scraped: Iterable[bytes] = exposed(environ, start_response)
            return scraped
        well = is_well()
        start_response("200 OK" if well else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"ok\n" if well else b"deaf: it asks the broker for nothing\n"]

    kind = _OnIPv6 if ":" in host else ThreadingWSGIServer
    server = make_server(host.strip("[]"), port, answer, server_class=kind, handler_class=_Silent)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
