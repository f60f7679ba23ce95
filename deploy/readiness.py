"""The answer of the local web process to `/readyz`."""

from __future__ import annotations

import http.client
import json


def unready(listen: str) -> str | None:
    """Return why the web could not accept a delivery now, or None if it could."""
    host, _, port = listen.rpartition(":")
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host.strip("[]"))  # noqa: S104 - we connect
    connection = http.client.HTTPConnection(name, int(port), timeout=5)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return None if answer.status == 200 else _said(answer.read(), answer.status)
    except (OSError, http.client.HTTPException) as error:
        return f"web does not answer at {listen} yet ({error})"
    finally:
        connection.close()


def _said(body: bytes, status: int) -> str:
    try:
        said = json.loads(body)["detail"]
    except (ValueError, KeyError, TypeError):
        return f"web answers {status}, and its log above says why"
    return f"web answers {status}: {str(said).rstrip('.')}"
