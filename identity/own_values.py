"""What an operator knows of a server of one's own, over the cautious row that stands for every such server.

`--config` of a connection to `oidc` or `oauth2` takes them: nobody else can read that server's documentation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from identity.errors import BadInput
from identity.model import ProviderConnection
from identity.pace import Pace
from identity.providers import profile_of
from identity.providers.profile import Profile

OWN = frozenset({"oidc", "oauth2"})  # the rows that stand for any server


def profile_for(profiles: Mapping[str, Profile], owner: ProviderConnection) -> Profile:
    """The row of *owner*'s provider, with what its configuration says otherwise. Raises Misconfigured, BadInput."""
    return with_own(profile_of(profiles, owner.provider), owner.config)


def with_own(profile: Profile, config: Mapping[str, str]) -> Profile:
    """*profile* with the values in a connection's *config*. Raises BadInput for one that cannot be read."""
    given = {field: read(name, config[name]) for name, (field, read) in _VALUES.items() if name in config}
    return replace(profile, **given) if given else profile


def check_own(profile: Profile, config: Mapping[str, str]) -> None:
    """Raises BadInput for a value that cannot be read, or of a provider whose row says it with its source."""
    named = sorted(_VALUES.keys() & config.keys())
    if named and profile.name not in OWN:
        raise BadInput(
            f"{', '.join(named)}: {profile.title}'s row says that, with its source; it is for a server of one's own"
        )
    with_own(profile, config)


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


def _days(name: str, text: str) -> timedelta:
    return timedelta(days=_whole(name, text, least=1, most=3650))


def _pace(name: str, text: str) -> Pace:
    requests, _, seconds = text.partition("/")
    number = _whole(f"{name}'s first part", requests, least=2, most=1_000_000)
    per = timedelta(seconds=_whole(f"{name}'s second part, its seconds,", seconds, least=1, most=86_400))
    return Pace(requests=number, per=per, burst=max(1, number // 10))


#: By their names in a connection's configuration: the field of the row, and what reads the text.
_VALUES: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "grace_seconds": ("grace_seconds", _grace),
    "rotates": ("rotates", _yes),
    "idle_limit_days": ("idle_limit", _days),
    "token_pace": ("token_pace", _pace),
}
