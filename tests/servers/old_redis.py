"""A Redis of any version, as far as somebody sees who asks what it is: it keeps nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import StreamRequestHandler, ThreadingTCPServer


@contextmanager
def redis_of_version(version: str) -> Iterator[str]:
    """Its URL, for as long as it answers there."""
    told = {
        b"INFO SERVER": _bulk(f"# Server\r\nredis_version:{version}\r\n"),
        b"INFO MEMORY": _bulk("# Memory\r\nused_memory:1000\r\nmaxmemory:0\r\n"),
        b"HELLO 3": b"%1\r\n" + _bulk("proto") + b":3\r\n",
        b"TIME": b"*2\r\n" + _bulk(str(int(time.time()))) + _bulk("0"),
        b"CONFIG GET": b"%1\r\n" + _bulk("maxmemory-policy") + _bulk("noeviction"),
    }

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline():
                words = [self._word() for _ in range(int(line[1:]))]
                self.wfile.write(told.get(b" ".join(words[:2]).upper(), b"+OK\r\n"))

        def _word(self) -> bytes:
            length = int(self.rfile.readline()[1:])
            return self.rfile.read(length + 2)[:-2]

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        finally:
            server.shutdown()
            thread.join()


def _bulk(text: str) -> bytes:
    return f"${len(text)}\r\n{text}\r\n".encode()
