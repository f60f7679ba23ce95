"""Who reaches the web: this machine alone, or others, who then come over TLS."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from deploy.settings import Settings


def stays_here(settings: Settings) -> bool:
    """Whether only this machine reaches the web: it listens on a loopback address, and is known by one."""
    listens = settings.listen.rpartition(":")[0].strip("[]")
    return _is_loopback(listens) and _is_known_here_alone(settings)


def is_in_the_clear(settings: Settings) -> bool:
    """Whether others are to come without TLS: keys, codes, links and sessions are then anybody's on the way."""
    return urlsplit(settings.base_url).scheme == "http" and not _is_known_here_alone(settings)


def reach_faults(settings: Settings) -> Iterator[str]:
    """Each as a sentence that names the settings, what is wrong between them, and what to do."""
    if is_in_the_clear(settings) and not settings.allow_http:
        yield (
            f"ASWHOM_BASE_URL is {settings.base_url}, where keys, sign-ins and links would go unencrypted: set it to "
            "an https:// address that a proxy answers with TLS, or in a lab, and only there, ASWHOM_ALLOW_HTTP=true"
        )
    if settings.web_metrics_port and settings.listen.endswith(f":{settings.web_metrics_port}"):
        yield (
            f"ASWHOM_WEB_METRICS_PORT is the port of ASWHOM_LISTEN ({settings.listen}), which others reach: choose "
            "another, or 0 to have the web answer /metrics where it listens"
        )


def _is_known_here_alone(settings: Settings) -> bool:
    return _is_loopback(urlsplit(settings.base_url).hostname or "")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
