"""A threaded HTTP/1.1 server on loopback for one WSGI app, which can misbehave on the wire."""

import io
import signal
import socket
import sys
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.types import WSGIApplication

from deploy.sandbox.faults import DRIP_PIECES, Fault, Mode
from deploy.sandbox.journal import Clock
from deploy.sandbox.surface import FAULT_KEY, PAUSE_KEY, RELEASE_KEY

# Werkzeug's own server closes each connection, but clients with connection pools need keep-alive.


class Server(ThreadingHTTPServer):
    """A server that runs until `stop()`, which also ends paused and dripping answers."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, app: WSGIApplication, *, clock: Clock | None = None) -> None:
        self.app = app
        self.clock = clock
        self.stopping = threading.Event()
        self._pausing = self._releases = 0
        self._released = threading.Condition()
        super().__init__(("127.0.0.1", port), _Connection)

    def pause(self, seconds: float) -> None:
        """Wait that long, or until a release or the end."""
        with self._released:
            before = self._releases
            self._pausing += 1
            self._released.notify_all()
            self._released.wait_for(lambda: self._releases != before, timeout=seconds)
            self._pausing -= 1

    def release(self, *, patience: float = 0.0) -> None:
        """Release everything that pauses. Wait up to *patience* seconds for something to pause."""
        with self._released:
            self._released.wait_for(lambda: self._pausing, timeout=patience)
            self._releases += 1
            self._released.notify_all()

    def stop(self) -> None:
        self.stopping.set()
        self.release()
        self.shutdown()
        self.server_close()

    def serve_until_terminated(self, name: str) -> None:
        """Print *name* to standard output, and serve until SIGTERM or SIGINT."""
        asked_to_stop = threading.Event()

        def stop(*_: object) -> None:
            asked_to_stop.set()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        print(name, flush=True)  # noqa: T201  (the parent process waits for this line)
        asked_to_stop.wait()
        self.stop()

    def server_close(self) -> None:
        # The parent class would join threads that wait on idle keep-alive connections.
        self.socket.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # clients may hang up at any time
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing, because the application has its own request log."""

    def _serve(self) -> None:
        if "Transfer-Encoding" in self.headers:
            self.close_connection = True
            self.send_error(411)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        environ = self._environ(body)
        head: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
            head[:] = [(status, headers)]
            return None  # WSGI's old write() is not used here

        answer = self.server.app(environ, start_response)
        try:
            content = b"".join(answer)
        finally:
            close = getattr(answer, "close", None)
            if close:
                close()
        status, headers = head[0]
        self._send(self._head(status, headers, len(content)), content, environ.get(FAULT_KEY))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _serve  # noqa: N815  (the parent's names)

    def _send(self, head: bytes, content: bytes, fault: Fault | None) -> None:
        if self.command == "HEAD":
            content = b""
        if fault and fault.waits_to_answer:
            self.server.pause(fault.seconds)
        match fault:
            case Fault(mode=Mode.DROP_REQUEST | Mode.DROP_RESPONSE):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            case Fault(mode=Mode.DRIP_HEADERS, seconds=seconds):
                self._drip(head, seconds)
                self.wfile.write(content)
            case Fault(mode=Mode.CUT_BODY):
                self.close_connection = True
                self.wfile.write(head + content[: len(content) // 2])
                self.connection.shutdown(socket.SHUT_RDWR)
            case Fault(mode=Mode.DRIP_BODY, seconds=seconds):
                self.wfile.write(head)
                self._drip(content, seconds)
            case _:
                self.wfile.write(head + content)

    def _drip(self, data: bytes, seconds: float) -> None:
        for piece in _pieces(data):
            if self.server.stopping.wait(seconds / DRIP_PIECES):
                return
            self.wfile.write(piece)

    def _head(self, status: str, headers: list[tuple[str, str]], length: int) -> bytes:
        lines = [f"HTTP/1.1 {status}"]
        lines += [f"{name}: {value}" for name, value in headers if name.lower() != "content-length"]
        if status[:3] != "204":  # RFC 9110 §8.6
            lines.append(f"Content-Length: {length}")
        at = self.server.clock().timestamp() if self.server.clock else None
        lines.append(f"Date: {self.date_time_string(at)}")
        if self.close_connection:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _environ(self, body: bytes) -> dict[str, Any]:
        path, _, query = self.path.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "RAW_URI": self.path,  # as sent, since a capability is bound to it
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": str(self.server.server_port),
            "SERVER_PROTOCOL": self.request_version,
            "REMOTE_ADDR": self.client_address[0],
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            PAUSE_KEY: self.server.pause,
            RELEASE_KEY: self.server.release,
        }
        for name, value in self.headers.items():
            environ["HTTP_" + name.upper().replace("-", "_")] = value
        return environ


def _pieces(data: bytes) -> Iterable[bytes]:
    size = max(1, -(-len(data) // DRIP_PIECES))
    return (data[start : start + size] for start in range(0, len(data), size))
