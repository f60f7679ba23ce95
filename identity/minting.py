"""Which request gets an account its next access token."""

from __future__ import annotations

from datetime import datetime

from identity.answers import ClientRefused, Dead, Meaning, read_outcome
from identity.errors import Misconfigured
from identity.http import Answer, HttpRequest, Outcome
from identity.model import Credential
from identity.oauth import Client, client_credentials_request, installation_request, refresh_request
from identity.providers.profile import Profile
from identity.secret import Secret
from identity.situation import Situation
from identity.vault import Vault


def token_request(situation: Situation, profile: Profile, vault: Vault, *, now: datetime) -> HttpRequest | None:
    """The request, or None: there is nothing to renew it with. Raises Misconfigured."""
    match situation.account.credential:
        case Credential.STATIC:
            return None
        case Credential.INSTALLATION:
            installation = situation.account.external_id
            if installation is None:
                raise Misconfigured(f"account {situation.account.id} does not say which installation it is")
            key = _client_secret(situation, vault)
            return installation_request(situation.connection, installation=installation, private_key=key, now=now)
        case Credential.CLIENT_CREDENTIALS:
            client = Client(connection=situation.connection, profile=profile, secret=_client_secret(situation, vault))
            return client_credentials_request(client, scopes=situation.connection.scopes)
        case Credential.AUTHORIZATION_CODE:
            if (sealed := situation.grant.refresh_sealed) is None:
                return None
            client = Client(connection=situation.connection, profile=profile, secret=_client_secret(situation, vault))
            return refresh_request(client, refresh_token=vault.open(sealed, situation.refresh_binding))


def read_token(situation: Situation, profile: Profile, outcome: Outcome, *, started_at: datetime) -> Meaning:
    """What came of that request means."""
    if situation.account.credential is not Credential.INSTALLATION:
        return read_outcome(
            outcome,
            profile,
            started_at=started_at,
            scopes=situation.grant.scopes,
            lifetime=situation.last_lifetime,
        )
    # https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app
    match outcome:
        case Answer(status=401):
            return ClientRefused(code="401: the app's key or id was refused")
        case Answer(status=404):
            return Dead(code="404: the installation is gone")
    return read_outcome(
        outcome,
        profile,
        started_at=started_at,
        scopes=situation.grant.scopes,
        lifetime=situation.last_lifetime,
        token_field="token",  # noqa: S106 - a field's name
    )


def _client_secret(situation: Situation, vault: Vault) -> Secret:
    if not situation.secrets:
        what = "private key" if situation.account.credential is Credential.INSTALLATION else "client secret"
        raise Misconfigured(f"provider connection {situation.connection.id} has no {what}")
    return situation.secrets[0].open(vault)
