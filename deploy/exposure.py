"""Who reaches the web: this machine alone, or others, who then come over TLS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from identity.http.addresses import is_loopback

if TYPE_CHECKING:
    from deploy.settings import Settings


def stays_here(settings: Settings) -> bool:
    """Whether only this machine reaches the web: it listens on a loopback address, and is known by one."""
    listens = settings.listen.rpartition(":")[0].strip("[]")
    return is_loopback(listens) and is_loopback(urlsplit(settings.base_url).hostname or "")


def is_in_the_clear(settings: Settings) -> bool:
    """Whether others come, or can, without TLS: keys, codes, links and sessions are then anybody's on the way."""
    return urlsplit(settings.base_url).scheme == "http" and not stays_here(settings)


def reach_faults(settings: Settings) -> Iterator[str]:
    """Each as a sentence that names the settings, what is wrong between them, and what to do."""
    if is_in_the_clear(settings) and not settings.allow_http:
        yield (
            f"ASWHOM_BASE_URL is {settings.base_url}, ASWHOM_LISTEN is {settings.listen}, and keys, sign-ins and links "
            "would go unencrypted: set the first to an https:// address that a proxy answers with TLS, or have both on "
            "127.0.0.1. In a lab, and in a container whose port is published on 127.0.0.1 alone, set "
            "ASWHOM_ALLOW_HTTP=true"
        )
