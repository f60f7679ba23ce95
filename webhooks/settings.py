"""What the web processes are told when they start. `deploy/settings.py` fills it in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from webhooks.client_address import NO_PROXIES, Proxies


@dataclass(frozen=True, kw_only=True)
class WebSettings:
    """The settings of the Flask app."""

    base_url: str  # how browsers and senders reach us, without a path: https://aswhom.example
    max_body: int = 5_000_000  # bytes of one delivery; GitHub's own cap is 25 MB, real ones are under 100 kB
    connect_lifetime: timedelta = timedelta(minutes=10)  # of the browser's cookie; as long as the link's
    api_rate: int = 600  # requests a minute that one key of the agents' API may make
    webhook_rate: int | None = None  # deliveries a minute that one provider connection takes; None: as many as come
    webhook_tenant_rate: int | None = None  # the same, for all connections of a tenant together
    proxies: Proxies = NO_PROXIES  # who may say where a request came from
    key_prefix: str = "aswhom:"  # of what quotas count in Redis
    metrics_port: int = 0  # a listener of ours that answers `/metrics` alone; 0: none, so it is answered everywhere
    metrics_dir: Path | None = None  # PROMETHEUS_MULTIPROC_DIR, where several processes add up

    @property
    def secure(self) -> bool:
        """Whether browsers reach us over TLS, so that cookies may insist on it."""
        return self.base_url.lower().startswith("https://")
