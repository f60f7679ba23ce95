"""Exposure of the web: local only, or reachable from elsewhere, which requires TLS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from identity.http.addresses import is_loopback

if TYPE_CHECKING:
    from deploy.settings import Settings


def stays_here(settings: Settings) -> bool:
    """True if only this machine reaches the web: both its listen address and its URL are loopback."""
    listens = settings.listen.rpartition(":")[0].strip("[]")
    return is_loopback(listens) and is_loopback(urlsplit(settings.base_url).hostname or "")


def is_in_the_clear(settings: Settings) -> bool:
    """True if others can connect without TLS, exposing keys, codes, links and sessions on the network."""
    return urlsplit(settings.base_url).scheme == "http" and not stays_here(settings)


def reach_faults(settings: Settings) -> Iterator[str]:
    """Yield each fault as a sentence: the settings, the problem and the remedy."""
    if is_in_the_clear(settings) and not settings.allow_http:
        yield (
            f"ASWHOM_BASE_URL is {settings.base_url}, ASWHOM_LISTEN is {settings.listen}, and keys, sign-ins and links "
            "would go unencrypted: set the first to an https:// address that a proxy answers with TLS, or have both on "
            "127.0.0.1. In a lab, and in a container whose port is published on 127.0.0.1 alone, set "
            "ASWHOM_ALLOW_HTTP=true"
        )
