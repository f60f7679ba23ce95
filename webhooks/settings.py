"""Settings of the web processes, filled in by `deploy/settings.py`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from webhooks.client_address import NO_PROXIES, Proxies


@dataclass(frozen=True, kw_only=True)
class WebSettings:
    base_url: str  # how browsers and senders reach us, without a path: https://aswhom.example
    max_body: int = 5_000_000  # bytes of one delivery; GitHub's own cap is 25 MB, real ones are under 100 kB
    connect_lifetime: timedelta = timedelta(minutes=10)  # of the browser's cookie; as long as the link's
    api_rate: int = 600  # requests a minute for one key of the agents' API, unless it or its agent has its own rate
    webhook_rate: int | None = None  # deliveries a minute for one provider connection; None: unlimited
    # Deliveries a minute for all connections of a tenant together, unless it has its own rate. Far above what people
    # cause, and a fifth of what a small machine accepts: one tenant's storm leaves room for others.
    webhook_tenant_rate: int = 3000
    proxies: Proxies = NO_PROXIES  # proxies trusted to report the client's address
    key_prefix: str = "aswhom:"  # prefix of the quota counters in Redis
    metrics_port: int = 0  # a separate listener for `/metrics`; 0: none, and every listener serves it
    metrics_dir: Path | None = None  # PROMETHEUS_MULTIPROC_DIR, with several processes

    @property
    def secure(self) -> bool:
        """True if browsers reach us over TLS, so that cookies may require it."""
        return self.base_url.lower().startswith("https://")
