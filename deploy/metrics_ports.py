"""The processes' metrics ports, which must all be different."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy.settings import Settings

_ON_ITS_OWN = ("WEB", "REVOCATIONS", "HOUSEKEEPING", "BEAT")


def web_metrics_address(settings: Settings) -> str | None:
    """Return the address of the web's metrics, or None if they are served on its own port."""
    return metrics_address(settings, settings.web_metrics_port) if settings.web_metrics_port else None


def metrics_address(settings: Settings, port: int) -> str:
    """Return the metrics address for a *port*, in the notation of Gunicorn and Prometheus."""
    host = settings.metrics_host.strip("[]")
    return f"{f'[{host}]' if ':' in host else host}:{port}"


def port_faults(settings: Settings) -> Iterator[str]:
    """Yield each conflict as a sentence: the settings, the problem and the remedy."""
    taken = {int(settings.listen.rpartition(":")[2]): f"ASWHOM_LISTEN ({settings.listen}), which others reach"}
    for name, port in _claimed(settings):
        if port and taken.setdefault(port, name) != name:
            yield (
                f"{name} would have port {port}, and so would {taken[port]}: choose another, or 0, with which the web "
                "answers /metrics where it listens, and any other process not at all; of workers ASWHOM_WORKERS says "
                "how many this machine has"
            )


def _claimed(settings: Settings) -> Iterator[tuple[str, int]]:
    """Yield each metrics port of one machine's processes, with the setting it comes from."""
    for process in _ON_ITS_OWN:
        yield f"ASWHOM_{process}_METRICS_PORT", settings.metrics_port(process.lower())
    first = settings.worker_metrics_port
    for number in range(settings.workers if first else 0):
        yield f"ASWHOM_WORKER_METRICS_PORT, {first} and on for ASWHOM_WORKERS={settings.workers}", first + number
