"""Checks provider connections: in use, reachable, and with valid secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from deploy.checkup.addresses import is_refused
from deploy.checkup.finding import Finding, Subject, unknown, wrong
from deploy.installation import Installation
from deploy.local_times import local_time
from identity.connections.secrets import CLIENT_SECRET, PRIVATE_KEY, WEBHOOK_SECRET
from identity.connections.self_hosted import secrets_in, unchecked_challenge, unreadable
from identity.http.client import Answer, Client, HttpRequest, NoAnswer, NotSent
from identity.people import all_taken_for
from identity.providers import PROFILES
from identity.refresh.requests import in_words
from identity.refresh.story import refused_accounts
from pipeline.views import connection_facts, operator_queries
from webhooks.sources import SOURCES

_WITHIN = timedelta(seconds=5)
_DAY = timedelta(days=1)
_SOON = timedelta(days=2)
_LATELY = timedelta(days=7)
_SHOWN = 20
_ROTATE = "`aswhom connections rotate-secret {id} --name {name} --file FILE`"
_PAUSED = (
    "Store what it authenticates by anew with {rotate}, which resumes it; where it is mended at the provider, "
    "`aswhom connections resume {id}`"
)
_PKCE = (
    "nothing says that its server checks the PKCE challenge, without which a stolen code could connect somebody else's "
    "account: `aswhom connections discover {id}` asks a server that has metadata; where its documentation says so, "
    "`aswhom connections set {id} --config pkce=S256`"
)
_ANOTHER = "`aswhom connections rotate-webhook-secret {id} --file FILE`"


def connections(at: Installation) -> Iterator[Finding]:
    for row in at.read(operator_queries.paused_connections):
        id = row["id"]
        live = partial(connection_facts.secret_ends, id=id)
        names = [name for name in (CLIENT_SECRET, PRIVATE_KEY) if at.read(partial(live, name=name))]
        # With two of them, the reason says which one.
        rotate = " or ".join(_ROTATE.format(id=id, name=name) for name in names or (CLIENT_SECRET, PRIVATE_KEY))
        yield wrong(
            Subject.CONNECTIONS, f"{id} is paused: {row['paused_reason']}. {_PAUSED.format(id=id, rotate=rotate)}"
        )
    for row in at.read(connection_facts.refused_secrets):
        says = f"{row['id']}, a {row['name']} of {row['connection_id']}, was refused, and another is used"
        yield unknown(Subject.CONNECTIONS, f"{says}: `aswhom connections show {row['connection_id']}`")
    yield from _refused(at)
    yield from _rivals(at)
    yield from _people(at)
    yield from _own_values(at)
    yield from _unlisted(at)
    yield from _left_out(at)
    yield from _by_workspace(at)


def _refused(at: Installation) -> Iterator[Finding]:
    """Report accounts refused a token for longer than an outage would explain."""
    for one in at.read(partial(refused_accounts, since=at.now() - _DAY)):
        says = (
            f"{one.number} account(s) of {one.connection} are given no token ({in_words(one.code)}), as {one.account}"
        )
        yield wrong(Subject.CONNECTIONS, f"{says}: `aswhom accounts show {one.account}` says what to do")


def _rivals(at: Installation) -> Iterator[Finding]:
    """Report rival connections, which are harmless for a provider that no action uses."""
    reached = {action.facts.provider for action in at.workflows.actions.values()}
    for provider, says in at.read(connection_facts.all_rivals):
        yield (wrong if provider in reached else unknown)(Subject.CONNECTIONS, says)


def _people(at: Installation) -> Iterator[Finding]:
    """Report connections whose users are mistaken for another server's, added before this was refused."""
    found = at.read(all_taken_for)
    for id, why in found[:_SHOWN]:
        yield wrong(Subject.CONNECTIONS, f"{id}: {why}: `aswhom connections name-people {id} NAME`")
    if len(found) > _SHOWN:
        yield wrong(Subject.CONNECTIONS, f"{len(found) - _SHOWN} more have users who are taken for others")


def _own_values(at: Installation) -> Iterator[Finding]:
    """Report configuration values stored before they were validated."""
    for row in at.read(operator_queries.all_connections):
        profile = PROFILES.get(row["provider"])
        for fault in unreadable(profile, row["config"]) if profile else ():
            says = f"{row['id']}: {fault}; what is stored is not read, and the cautious value holds"
            yield unknown(Subject.CONNECTIONS, says)
        for fault in secrets_in(row["config"]):
            yield wrong(
                Subject.CONNECTIONS, f"{row['id']}: {fault}, by `aswhom connections set {row['id']}`. Then change it"
            )
        if row["authorize_url"] and unchecked_challenge(row["provider"], row["config"]):
            yield unknown(Subject.CONNECTIONS, f"{row['id']}: {_PKCE.format(id=row['id'])}")


def _unlisted(at: Installation) -> Iterator[Finding]:
    """Report a tenant's own connection without listed installations.

    Anybody may install a public app, and a stranger's installation would count as the tenant's.
    """
    listing = {row["connection_id"] for row in at.read(operator_queries.all_installations)}
    for row in at.read(operator_queries.all_connections):
        id, tenant = row["id"], row["tenant_id"]
        profile, secrets = PROFILES.get(row["provider"]), row["secrets"]
        if tenant is None or id in listing or profile is None or WEBHOOK_SECRET not in secrets:
            continue
        if profile.installation_of_app and PRIVATE_KEY not in secrets:  # a repository's webhook has no installation
            continue
        what = "installation" if profile.installation_of_app else "workspace or organization"
        add = f"`aswhom installations add {id} ID {tenant}`"
        if row["only_listed"]:
            says = f"{id} is {tenant}'s own and lists no {what} any more, so whatever names one is stored as ignored"
            if not profile.installation_of_app:
                says += f", except that the end of any ends {tenant}'s accounts, whoever owned it"
            yield unknown(Subject.CONNECTIONS, f"{says}: {add}")
            continue
        does = "starts its workflows" if profile.installation_of_app else "and removes it again ends its accounts"
        says = (
            f"{id} is {tenant}'s own and lists no {what}, so any is taken for {tenant}'s: where its app is public, a "
            f"stranger who installs it {does}. List {tenant}'s: {add}"
        )
        yield unknown(Subject.CONNECTIONS, says)


def _left_out(at: Installation) -> Iterator[Finding]:
    """Report ignored deliveries. Either the list lacks or misspells an installation, or it is a stranger's."""
    since = at.now() - _LATELY
    for row in at.read(lambda c: operator_queries.left_out(c, since=since)):
        id = row["connection_id"]
        says = (
            f"{row['deliveries']} of the latest deliveries to {id} came to nothing: {row['reason']}. "
            "Where that one is a stranger's, leave it so"
        )
        yield unknown(Subject.CONNECTIONS, says)


def _by_workspace(at: Installation) -> Iterator[Finding]:
    """Report an organization-wide app listed only by workspace: its other workspaces, and their ends, are unknown."""
    rows = at.read(operator_queries.all_installations)
    listed = {(row["connection_id"], row["external_id"]) for row in rows}
    workspaces: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        wide = (row["connection_id"], row["organization"])
        if row["organization"] is not None and wide not in listed:
            workspaces.setdefault(wide, []).append(row)
    for (id, organization), theirs in workspaces.items():
        tenants = sorted({row["tenant_id"] for row in theirs})
        says = (
            f"the app of {id} is installed in the whole organization {organization}, and listed by its workspaces "
            f"{', '.join(sorted(row['external_id'] for row in theirs))} alone: "
        )
        if len(tenants) == 1:
            says += f"`aswhom installations add {id} {organization} {tenants[0]}`"
        else:
            says += f"they are of {' and '.join(tenants)}, so list each other workspace by itself, as whose it is"
        yield unknown(Subject.CONNECTIONS, says)


def webhook_secrets(at: Installation) -> Iterator[Finding]:
    """Report connections without a live webhook secret, which refuse every delivery, or whose last one ends soon."""
    now = at.now()
    for row in at.read(operator_queries.all_connections):
        if row["provider"] not in SOURCES:
            continue
        id = row["id"]
        ends = at.read(partial(connection_facts.secret_ends, id=id, name=WEBHOOK_SECRET))
        if not ends:
            yield unknown(
                Subject.WEBHOOK_SECRETS,
                f"{id} has none, so every delivery is refused: {_ANOTHER.format(id=id)}",
            )
        elif (last := _last(ends)) is not None and last < now + _SOON:
            yield wrong(
                Subject.WEBHOOK_SECRETS,
                f"the last one of {id} ends at {local_time(last)}: {_ANOTHER.format(id=id)}",
            )


def _last(ends: list[datetime | None]) -> datetime | None:
    """Return when the last secret ends, or None if one has no end."""
    known = [end for end in ends if end is not None]
    return max(known) if len(known) == len(ends) else None


def reachable(at: Installation) -> Iterator[Finding]:
    """Check that token endpoints answer at all: DNS, routing, TLS."""
    rows = at.read(operator_queries.all_connections)
    policy = at.settings.addresses()
    # URLs refused by their form are reported by another check.
    named = {row["token_url"] for row in rows if row["token_url"] and not is_refused(policy, row["token_url"])}
    urls = sorted(map(_origin, named))
    if not urls:
        return
    with (
        Client(policy=policy, pool_size=8, ca_file=at.settings.ca_file) as client,
        ThreadPoolExecutor(8) as threads,
    ):

        def ask(url: str) -> str | None:
            outcome = client.send(HttpRequest(method="HEAD", url=url), within=_WITHIN)
            return None if isinstance(outcome, Answer) else _unanswered(url, outcome)

        told = [says for says in threads.map(ask, urls) if says is not None]
    for says in told[:_SHOWN]:
        yield wrong(Subject.REACHABILITY, says)
    if len(told) > _SHOWN:
        yield wrong(Subject.REACHABILITY, f"{len(told) - _SHOWN} more do not answer")


def _unanswered(url: str, outcome: NotSent | NoAnswer) -> str:
    why = outcome.reason
    if isinstance(outcome, NotSent) and outcome.prohibited:
        mine = f"where it is yours, add {urlsplit(url).netloc} to ASWHOM_ALLOW_HOSTS, for every process"
        return f"{url} is not asked ({why}): {mine}"
    if "CERTIFICATE_VERIFY_FAILED" in why:
        ours = "name the authority of a server of your own in ASWHOM_CA_FILE; at another, somebody may stand in between"
        return f"{url} does not answer ({why}): its certificate is not trusted: {ours}"
    return f"{url} does not answer ({why}): look at name service and routes"


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/"
