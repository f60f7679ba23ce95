"""Checks that the web answers at the URL that senders and browsers use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from urllib.parse import urlsplit

from deploy.checkup.finding import Finding, Subject, ok, unknown, wrong
from deploy.exposure import is_in_the_clear
from deploy.installation import Installation
from deploy.settings import Settings
from identity.errors import Misconfigured
from identity.http.addresses import AddressPolicy
from identity.http.client import Answer, Client, HttpRequest
from identity.keys.trusted_keys import key_id

WITHIN = timedelta(seconds=5)


def ready(at: Installation) -> Answer | str:
    """Return the answer of `/readyz` at the installation's URL, or why there is none."""
    base_url = at.settings.base_url
    address = urlsplit(base_url)
    # Our own URL may be private and use plain HTTP.
    ours = f"http://{address.netloc}" if address.port else f"http://{address.netloc}:80"
    policy = AddressPolicy(allow_hosts=frozenset({address.netloc, ours}))
    with Client(policy=policy, pool_size=1, ca_file=at.settings.ca_file) as client:
        outcome = client.send(HttpRequest(method="GET", url=f"{base_url}/readyz"), within=WITHIN)
    return outcome if isinstance(outcome, Answer) else outcome.reason


def web(at: Installation) -> Iterator[Finding]:
    ours = None
    with suppress(Misconfigured):  # the check `keys` reports what is wrong
        ours = key_id(at.signer.public_key())
    yield from answering(at.settings, ready(at), signing_key=ours)


def answering(settings: Settings, found: Answer | str, *, signing_key: str | None = None) -> Iterator[Finding]:
    """Yield findings from the answer of `/readyz`, or its absence. *signing_key* is this installation's key id."""
    base = settings.base_url
    if isinstance(found, str):
        yield wrong(
            Subject.WEB, f"{base} does not answer ({found}): is `aswhom up`, or web, running? See ASWHOM_BASE_URL"
        )
    elif found.status != 200:
        yield wrong(Subject.WEB, f"{base}/readyz answers {found.status}: the log of web says why")
    elif signing_key is not None and (other := _signing_key(found)) not in (None, signing_key):
        yield wrong(
            Subject.WEB,
            f"{base} is another installation's web, which signs with {other} and not with {signing_key}: see "
            "ASWHOM_BASE_URL and ASWHOM_LISTEN; where the signing key was rotated here, restart web",
        )
    elif is_in_the_clear(settings):
        yield unknown(Subject.WEB, f"ready at {base}, unencrypted: for a lab alone (ASWHOM_ALLOW_HTTP)")
    else:
        yield ok(Subject.WEB, f"ready at {base}")


def _signing_key(found: Answer) -> str | None:
    """Return the key id in the answer, or None for an older version or a foreign web."""
    try:
        said = json.loads(found.body)
    except ValueError:
        return None
    return said.get("signing_key") if isinstance(said, dict) else None
