"""docs/providers.md and the list of providers: each row's values, and how well they were verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import timedelta
from enum import StrEnum

from identity.providers.pace import Pace
from identity.providers.profile import Assertion, Liveness, Profile, Renewal, Revocation, WhoAmI
from identity.providers.sources import Evidence, Source

_UNSOURCED = ("name", "title", "sources")
_HEAD = """# Providers

What Aswhom knows of each provider, as data: `identity/providers/`, one row a file. This page is made from the rows by
`aswhom connections providers --page`, and a test compares the two.

Each value says where it comes from: **read** in the provider's own documentation, source or standard; **second-hand**,
somebody else says so; **assumed**, nobody says so, and the value is the cautious one. A value that a row does not name
is the default of `identity/providers/profile.py`, which is the cautious one too: no grace for a second presentation
(`grace_seconds` is 0 everywhere until one was read), no lifetime, no way to revoke.

`aswhom connections add` takes each of them; `--api-url`, `--authorize-url`, `--token-url` and `--config` say otherwise
for one connection. For a server of one's own (`oidc`, `oauth2`) `--config` also takes what its documentation says:
`rotates` (`true`, `false`), `grace_seconds` (0 to 3600), `idle_limit_days` (after which it forgets an unused refresh
token; unless it is given, none is known, and nothing is refreshed for that reason), `token_pace` (`100/60`: at most
100 token requests a minute, a tenth of them at once), `dead_codes` (`gone,over`: errors besides `invalid_grant` that
end a grant), `authorize.NAME` and `token.NAME` (a parameter of the consent page's address, and of each request for a
token: `authorize.audience=…`, `token.resource=…`), `bearer_types` (what it calls bearer tokens; a token of any other
type is kept and shown to nobody) and
`empty_scope_means_asked` (`true`: an answer with `"scope": ""` grants what was asked for; otherwise, nothing).
"""


def summary(profile: Profile) -> dict[str, object]:
    """Return a provider's line in the list."""
    kinds = [source.evidence for source in profile.sources.values()]
    return {
        "name": profile.name,
        "title": profile.title,
        "client_auth": str(profile.client_auth),
        "rotates": profile.rotates,
        "jwt_bearer": profile.assertion is not None,
        "discovers": profile.discovers,
        "revokes": str(profile.revocation.reach) if profile.revocation else None,
        **{str(kind).replace("-", "_"): kinds.count(kind) for kind in Evidence},
    }


def sourced(profile: Profile) -> frozenset[str]:
    """Return the fields that need a source: those without a default, and those that differ from it."""
    named = set()
    for one in fields(Profile):
        given = getattr(profile, one.name)
        default = one.default_factory() if callable(one.default_factory) else one.default
        if one.name not in _UNSOURCED and given != default:
            named.add(one.name)
    return frozenset(named)


def render(profiles: Mapping[str, Profile]) -> str:
    """Return the whole page."""
    return "\n".join([_HEAD, *(_section(profile) for profile in sorted(profiles.values(), key=lambda one: one.name))])


def _section(profile: Profile) -> str:
    rows = [
        f"| `{one.name}` | {_said(getattr(profile, one.name))} | {_source(profile.sources[one.name])} |"
        for one in fields(Profile)
        if one.name in sourced(profile)
    ]
    head = f"## {profile.title}: `{profile.name}`\n\n| | value | verified |\n|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def _source(source: Source) -> str:
    where = source.where
    linked = f"<{where}>" if where.startswith("https://") and " " not in where else where
    return f"**{source.evidence}**: {linked}"


def _said(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case StrEnum():
            return f"`{value}`"
        case str():
            return f"`{value}`" if value else "none"
        case timedelta():
            return _duration(value)
        case frozenset():
            return _said(tuple(sorted(value)))
        case tuple():
            return ", ".join(f"`{one}`" for one in value)
        case Mapping():
            return "; ".join(f"`{name}` {_said(one)}" for name, one in value.items())
        case Assertion() | Revocation():
            parts = ((one.name.replace("_", " "), getattr(value, one.name), one.default) for one in fields(value))
            return "; ".join(f"{name} {_said(said)}" for name, said, default in parts if said != default) or "yes"
        case Pace():
            return f"{value.requests} in {_duration(value.per)}, {value.burst} of them at once"
        case WhoAmI() | Liveness() | Renewal():
            return "asked"
        case None:
            return "none"
        case _ if callable(value):
            return "its own"
        case _:
            return str(value)


def _duration(value: timedelta) -> str:
    seconds = int(value.total_seconds())
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds % size == 0 and seconds >= 2 * size:
            return f"{seconds // size} {name}"
    return f"{seconds} seconds"
