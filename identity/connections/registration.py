"""Registration and change of provider connections: an admin's values, then discovery's, then the profile's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from identity.connections.discovery import Metadata
from identity.connections.lateness import SETTING, TRIES_FOR, allowed_lateness
from identity.connections.self_hosted import OWN, OWN_VALUES, PKCE, check_own, is_own_value
from identity.errors import BadInput
from identity.http.addresses import AddressPolicy
from identity.model import ProviderConnection
from identity.oauth.assertions import ALGORITHMS
from identity.oauth.requests import client_auth
from identity.principals import checked_id
from identity.providers.profile import Profile
from identity.secret import Secret

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")  # RFC 9110 §5.6.2
_PEOPLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")  # as long as the aliases' column
_SCHEME = re.compile(r"[A-Za-z0-9._~+/-]{0,32}")
#: Keys of a connection's configuration.
_AUTHENTICATION = ("client_auth", "signing_alg", "key_id", "assertion_audience")
_OTHERS = ("confirm", "key_header", "key_scheme", "sends_iss", PKCE)
_NAMED = ("people", "issuer", "revocation_url", "userinfo_url")


@dataclass(frozen=True, kw_only=True)
class Registration:
    """An admin's values for a new connection; None leaves a value to the provider's profile."""

    id: str
    tenant: str | None
    client_id: str
    scopes: tuple[str, ...]
    api_url: str | None = None
    authorize_url: str | None = None
    token_url: str | None = None
    config: Mapping[str, str] = field(default_factory=dict)


def register(
    given: Registration,
    profile: Profile,
    policy: AddressPolicy,
    *,
    metadata: Metadata | None,
    has_secret: bool,
    has_key: bool,
) -> ProviderConnection:
    """Return the provider connection. *metadata* was discovered. Raises BadInput, Misconfigured."""
    _check_known(profile, given.config)
    found = {} if metadata is None else metadata.config()
    config = {**found, **given.config}
    if metadata is not None and "client_auth" not in config:
        config["client_auth"] = metadata.client_auth(has_secret=has_secret, has_key=has_key)
    owner = ProviderConnection(
        id=checked_id(given.id),
        tenant=given.tenant,
        provider=profile.name,
        client_id=given.client_id,
        scopes=given.scopes,
        api_url=given.api_url or profile.api_url or (metadata.issuer if metadata else ""),
        authorize_url=given.authorize_url or (metadata.authorize_url if metadata else profile.authorize_url),
        token_url=given.token_url or (metadata.token_url if metadata else profile.token_url),
        config=config,
    )
    _check(owner, profile, policy)
    return owner


@dataclass(frozen=True, kw_only=True)
class Change:
    """An admin's new values; None keeps the old one."""

    client_id: str | None = None
    scopes: tuple[str, ...] | None = None
    config: Mapping[str, str] = field(default_factory=dict)

    def of(self, owner: ProviderConnection, profile: Profile, policy: AddressPolicy) -> ProviderConnection:
        """Return the connection with the change, checked like a new one. Raises BadInput, Misconfigured."""
        _check_known(profile, self.config)
        if "people" in self.config:
            raise BadInput(f"people moves links too: `aswhom connections name-people {owner.id} NAME`")
        if there := sorted(name for name in self.config if _is_address(name)):
            raise BadInput(
                f"{there[0]} says where tokens go, and whose users are meant: that is another connection. Remove "
                f"{owner.id} while nothing refers to it, and add it again"
            )
        after = replace(
            owner,
            client_id=owner.client_id if self.client_id is None else self.client_id,
            scopes=owner.scopes if self.scopes is None else self.scopes,
            config={**owner.config, **self.config},
        )
        _check(after, profile, policy)
        return after


def changed_fields(before: ProviderConnection, after: ProviderConnection) -> list[str]:
    """Return the names of the fields that differ: `scopes`, `config.app_id`."""
    plain = [name for name in ("client_id", "scopes") if getattr(before, name) != getattr(after, name)]
    names = before.config.keys() | after.config.keys()
    configured = [f"config.{name}" for name in names if before.config.get(name) != after.config.get(name)]
    return sorted(plain + configured)


def client_fields(profile: Profile) -> frozenset[str]:
    """Return the fields that identify the client: only the client that won a token can renew and end it."""
    issuer = profile.assertion and profile.assertion.issuer
    return frozenset({"client_id", "config.app_id"} | ({f"config.{issuer}"} if issuer else set()))


def authentication_fields(profile: Profile) -> frozenset[str]:
    """Return the fields, besides its secret, that a refusal of the client may be due to."""
    return client_fields(profile) | {f"config.{name}" for name in _AUTHENTICATION}


def audited_values(owner: ProviderConnection, names: Iterable[str]) -> dict[str, Any]:
    """Return the values of the fields *names*, for the audit."""
    said = {"client_id": owner.client_id, "scopes": list(owner.scopes)}
    return {name: said.get(name, owner.config.get(name.removeprefix("config."))) for name in names}


def service_account(document: Secret) -> tuple[Secret, dict[str, str]]:
    """Return the private key and the configuration in a Google service account's key file. Raises BadInput.

    The file's own `token_uri` is ignored: the provider connection defines where tokens come from.
    """
    with suppress(ValueError):  # raised below instead: this error quotes the file
        match json.loads(document.reveal()):
            case {"private_key": str(key), "client_email": str(email), "private_key_id": str(key_id)}:
                return Secret(key), {"service_account": email, "key_id": key_id}
    raise BadInput("that is no service account's key: give the JSON file that Google Cloud makes for a key")


def _check_known(profile: Profile, config: Mapping[str, str]) -> None:
    """Raise BadInput for an unknown name: a misspelt one would have no effect."""
    own = {"app_id"} if profile.installation_of_app else set()
    own |= {profile.assertion.issuer} if profile.assertion and profile.assertion.issuer else set()
    own |= {SETTING} if profile.name in TRIES_FOR else set()
    known = {*_AUTHENTICATION, *_OTHERS, *_NAMED, *own} | (OWN_VALUES if profile.name in OWN else frozenset())
    # Names meant for `oidc` and `oauth2` are refused by `check_own`, with the reason.
    if unknown := sorted(name for name in config if name not in known and not is_own_value(name)):
        raise BadInput(f"{profile.title} has no setting {', '.join(unknown)}: it takes {', '.join(sorted(known))}")


def _is_address(name: str) -> bool:
    return name == "issuer" or (name.endswith("_url") and not is_own_value(name))


def _check(owner: ProviderConnection, profile: Profile, policy: AddressPolicy) -> None:
    client_auth(owner, profile)
    if not owner.api_url:
        raise BadInput(f"{profile.title} has no address that is everybody's: give the upstream's with --api-url")
    if not owner.token_url:
        how = "--issuer" if profile.discovers else "--token-url, or --issuer"
        raise BadInput(f"nothing says where {profile.title} gives tokens: give {how}")
    addresses = {"the API's address": owner.api_url, "the token endpoint": owner.token_url}
    if owner.authorize_url:
        addresses["the authorization endpoint"] = owner.authorize_url
    addresses |= {name: url for name, url in owner.config.items() if _is_address(name)}
    for what, url in addresses.items():
        policy.checked_url(url, what=what)
    config = owner.config
    check_own(profile, config)
    if profile.name in TRIES_FOR:
        allowed_lateness(profile.name, config)
    if (people := config.get("people")) is not None:
        checked_name(people)
    if (algorithm := config.get("signing_alg")) is not None and algorithm not in ALGORITHMS:
        raise BadInput(f"signing_alg is one of {', '.join(ALGORITHMS)}")
    if config.get("confirm", "false") not in ("true", "false"):
        raise BadInput("confirm is true where products must confirm who connected, or false")
    if config.get(PKCE, "S256") not in ("S256", ""):
        raise BadInput(f"{PKCE} is S256 where the server is known to check it, or nothing")
    if not _HEADER.fullmatch(config.get("key_header", "authorization")):
        raise BadInput("key_header is not the name of a header")
    if not _SCHEME.fullmatch(config.get("key_scheme", "")):
        raise BadInput("key_scheme is not the name of a scheme")


def checked_name(name: str) -> str:
    """Return *name*. Raises BadInput if it cannot be one."""
    if not _PEOPLE.fullmatch(name):
        raise BadInput("people is the name under which aliases know its users: up to 32 letters, digits, '-', '_', '.'")
    return name
