"""Differences between the providers' authorization servers."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Provider:
    """A provider's behaviour, as published."""

    name: str
    authorize_path: str
    token_path: str
    access_prefix: str
    refresh_prefix: str
    refresh_seconds: int | None  # None: no expiry
    refresh_kills_access: bool  # the old access token dies with the old refresh token
    has_scopes: bool
    form_encoded: bool  # answers form-encoded unless asked for JSON
    errors_in_200: bool
    names_lifetime: bool = True  # whether answers have expires_in
    rotates: bool = True  # a refresh token works once
    grace_seconds: float = 0  # how long after its first use a refresh token may be presented again
    always_form: bool = False  # form-encoded even if asked for JSON
    always_granted: tuple[str, ...] = ()  # scopes granted in addition to the requested ones


# docs.github.com: "Refreshing user access tokens"; ghu_ and ghr_ are its published prefixes.
GITHUB = Provider(
    name="github",
    authorize_path="/github/login/oauth/authorize",
    token_path="/github/login/oauth/access_token",  # noqa: S106  (a path)
    access_prefix="ghu_",
    refresh_prefix="ghr_",
    refresh_seconds=15_811_200,
    refresh_kills_access=True,
    has_scopes=False,
    form_encoded=True,
    errors_in_200=True,
)

# linear.app/developers: "OAuth 2.0 authentication".
LINEAR = Provider(
    name="linear",
    authorize_path="/linear/oauth/authorize",
    token_path="/linear/oauth/token",  # noqa: S106  (a path)
    access_prefix="lin_oauth_",
    refresh_prefix="lin_refresh_",
    refresh_seconds=None,
    refresh_kills_access=False,
    has_scopes=True,
    form_encoded=False,
    errors_in_200=False,
    always_granted=("read",),
)

# help.salesforce.com: "OAuth 2.0 Web Server Flow"; a session ends when the organization's settings say so.
SALESFORCE = Provider(
    name="salesforce",
    authorize_path="/salesforce/services/oauth2/authorize",
    token_path="/salesforce/services/oauth2/token",  # noqa: S106  (a path)
    access_prefix="00D",
    refresh_prefix="5Aep",
    refresh_seconds=None,
    refresh_kills_access=False,
    has_scopes=True,
    form_encoded=False,
    errors_in_200=False,
    names_lifetime=False,
)

PROVIDERS = {provider.name: provider for provider in (GITHUB, LINEAR, SALESFORCE)}
