"""Settings for a self-hosted server, which override the cautious profile that stands for every such server.

`--config` of a connection to `oidc` or `oauth2` takes them, because only its operator knows that server's
documentation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

from identity.errors import BadInput
from identity.providers import profile_of
from identity.providers.pace import Pace
from identity.providers.profile import Profile

OWN = frozenset({"oidc", "oauth2"})  # the profiles that stand for any server
PKCE = "pkce"  # `S256`: the server is known to check the challenge that is sent with every consent


class Configured(Protocol):
    """A provider connection, or its known parts."""

    @property
    def provider(self) -> str: ...

    @property
    def config(self) -> Mapping[str, str]: ...


def profile_for(profiles: Mapping[str, Profile], owner: Configured) -> Profile:
    """Return the profile of *owner*'s provider with the overrides of its configuration. Raises Misconfigured.

    An unreadable value leaves the profile as it is, since it may predate its check. `aswhom doctor` reports it.
    """
    profile = profile_of(profiles, owner.provider)
    given = _given(profile, owner.config)
    read = {field: value for field, value in given.items() if not isinstance(value, BadInput)}
    return replace(profile, **read) if read else profile


def unreadable(profile: Profile, config: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the values in a connection's *config*."""
    return [str(value) for value in _given(profile, config).values() if isinstance(value, BadInput)]


def unchecked_challenge(provider: str, config: Mapping[str, str]) -> bool:
    """True if the server is not known to check our PKCE challenge (RFC 9700 §2.1.1).

    At a server that ignores it, the thief of an unused code may connect the victim's account as their own.
    """
    return provider in OWN and config.get(PKCE) != "S256"


def check_own(profile: Profile, config: Mapping[str, str]) -> None:
    """Raise BadInput for an unreadable value, or for a provider whose profile already defines it."""
    named = sorted(name for name in config if is_own_value(name))
    if named and profile.name not in OWN:
        raise BadInput(
            f"{', '.join(named)}: {profile.title}'s row says that, with its source; it is for a server of one's own"
        )
    if faults := [*unreadable(profile, config), *secrets_in(config)]:
        raise BadInput("; ".join(faults))


def secrets_in(config: Mapping[str, str]) -> list[str]:
    """Return a complaint for each parameter whose name suggests a secret: nothing in *config* is sealed."""
    named = [name for name, value in config.items() if value and name.startswith(tuple(_PARAMETERS))]
    return [
        f"{name} looks like a secret, and --config is stored and shown in clear: the client's own is sealed where "
        f"--client-secret-file gives it, another is not sent by Aswhom; `--config {name}=` takes it out"
        for name in sorted(named)
        if _SECRET.search(name)
    ]


def _given(profile: Profile, config: Mapping[str, str]) -> dict[str, Any]:
    """Return the values by profile field; a BadInput in place of an unreadable one."""
    if profile.name not in OWN:
        return {}
    read = {field: _read(read, name, config[name]) for name, (field, read) in _VALUES.items() if name in config}
    for prefix, (field, reserved) in _PARAMETERS.items():
        named = {name.removeprefix(prefix): value for name, value in config.items() if name.startswith(prefix)}
        if named:
            of_row = getattr(profile, field)
            read[field] = _read(partial(_parameters, of_row=of_row, reserved=reserved), prefix, named)
    return read


def is_own_value(name: str) -> bool:
    """True if only self-hosted servers' configurations may have it."""
    return name in _VALUES or name.startswith(tuple(_PARAMETERS))


def _parameters(
    prefix: str, named: Mapping[str, str], *, of_row: Mapping[str, str], reserved: frozenset[str]
) -> dict[str, str]:
    """Return the additional parameters by name; one with an empty value is left out."""
    for name, value in named.items():
        if name in reserved:
            raise BadInput(f"{prefix}{name} cannot be given: {name} is what this protocol itself says there")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) or len(value) > 1024 or not value.isprintable():
            raise BadInput(f"{prefix}{name} is not the name of a parameter with a printable value of 1024 characters")
    return {name: value for name, value in {**of_row, **named}.items() if value}


def _read(read: Callable[[str, Any], Any], name: str, text: Any) -> Any:
    try:
        return read(name, text)
    except BadInput as fault:
        return fault


def _whole(name: str, text: str, *, least: int, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise BadInput(f"{name} is a whole number from {least} to {most}")
    return int(text)


def _grace(name: str, text: str) -> int:
    return _whole(name, text, least=0, most=3600)


def _yes(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise BadInput(f"{name} is true or false")
    return text == "true"


def _words(name: str, text: str) -> frozenset[str]:
    words = text.split(",")
    if not all(re.fullmatch(r"[!-~]{1,64}", word) for word in words):
        raise BadInput(f"{name} is one or more words with commas between them")
    return frozenset(words)


def _types(name: str, text: str) -> frozenset[str]:
    return _words(name, text.lower())


def _days(name: str, text: str) -> timedelta:
    return timedelta(days=_whole(name, text, least=1, most=3650))


def _pace(name: str, text: str) -> Pace:
    requests, _, seconds = text.partition("/")
    number = _whole(f"{name}'s first part", requests, least=2, most=1_000_000)
    per = timedelta(seconds=_whole(f"{name}'s second part, its seconds,", seconds, least=1, most=86_400))
    return Pace(requests=number, per=per, burst=max(1, number // 10))


#: By name in a connection's configuration: the profile's field, and the parser.
_VALUES: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "grace_seconds": ("grace_seconds", _grace),
    "rotates": ("rotates", _yes),
    "idle_limit_days": ("idle_limit", _days),
    "token_pace": ("token_pace", _pace),
    "dead_codes": ("dead_codes", _words),
    "bearer_types": ("bearer_types", _types),
    "empty_scope_means_asked": ("empty_scope_means_asked", _yes),
}

#: Prefixes of names that are parameters of a request: the profile's field, and names that the protocol sets itself.
#: Another `response_mode` would deliver the code where it is not read; a request object would overrule the rest.
_PARAMETERS: dict[str, tuple[str, frozenset[str]]] = {
    "authorize.": (
        "authorize_extra",
        frozenset(
            {"response_type", "response_mode", "client_id", "redirect_uri", "scope", "state", "nonce"}
            | {"code_challenge", "code_challenge_method", "request", "request_uri"}
            # The URL's content stays in the browser and its history.
            | {"client_secret", "client_assertion", "client_assertion_type"}
        ),
    ),
    "token.": (
        "token_extra",
        frozenset(
            {"grant_type", "code", "redirect_uri", "code_verifier", "refresh_token", "scope", "assertion"}
            | {"client_id", "client_secret", "client_assertion", "client_assertion_type"}
        ),
    ),
}

#: By the last word: `subject_token_type` and `key_id` only describe a token or key.
_SECRET = re.compile(r"(secret|passw(or)?d|passphrase|passcode|credentials?|token|key)$", re.IGNORECASE)

OWN_VALUES = frozenset(_VALUES) | {f"{prefix}NAME" for prefix in _PARAMETERS}
