"""The world that all sandbox processes share: three tenants, their people, and fresh secrets."""

import base64
import secrets
import string
import uuid
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from deploy.sandbox import business

APP_SLUG = "aswhom-sandbox"
APP_PERMISSIONS = {"contents": "read", "issues": "write", "metadata": "read", "pull_requests": "write"}
LINEAR_SCOPES = ["read", "write", "issues:create", "comments:create"]
SLACK_SCOPES = ["channels:read", "chat:write"]
TENANTS = ("acme", "globex", "initech")
PEOPLE = {"acme": ("ada", "grace"), "globex": ("linus", "margaret"), "initech": ("barbara", "edsger")}
REPOSITORIES = {"acme": ["acme/shop", "acme/infra"], "globex": ["globex/site"], "initech": ["initech/reports"]}


def make_world(
    *,
    ports: dict[str, int],
    hooks: dict[str, str],
    callbacks: dict[str, str],
    now: datetime,
    access_seconds: int = 28800,
    authority: str = "http://127.0.0.1:1",
    app_key: str | None = None,
) -> dict[str, Any]:
    """Return a JSON-serializable world for the processes on *ports*, one per service.

    *hooks* maps GitHub, Slack and optionally Linear to the URL that receives their signed deliveries. *callbacks* maps
    each provider's client to its registered redirect URI. *authority* issues the capabilities that pay invoices.
    *app_key* is the GitHub App's private key in PEM; by default one is generated.
    """
    github = _github(ports["github"], hooks["github"], app_key or make_app_key())
    linear = _linear(ports["linear"], hooks.get("linear"))
    salesforce = business.salesforce(_url(ports["salesforce"]), PEOPLE)
    return {
        "created_at": now.isoformat(),
        "auth": {
            "url": _url(ports["auth"]),
            "internal_key": secrets.token_urlsafe(32),
            "clients": [
                _client("github", github, callbacks["github"], access_seconds, scopes=[]),
                _client("linear", linear, callbacks["linear"], access_seconds, scopes=LINEAR_SCOPES),
                _client(
                    "salesforce",
                    salesforce,
                    callbacks.get("salesforce", ""),
                    access_seconds,
                    scopes=business.SALESFORCE_SCOPES,
                ),
                *(
                    _organization_client(
                        organization, access_seconds, callbacks.get(f"linear:{organization['url_key']}")
                    )
                    for organization in linear["organizations"]
                ),
            ],
        },
        "github": github,
        "linear": linear,
        "slack": _slack(ports["slack"], hooks["slack"]),
        "standard": [{"tenant": tenant, "secret": _standard_secret()} for tenant in TENANTS],
        "salesforce": salesforce,
        "stripe": business.stripe(_url(ports["stripe"]), TENANTS),
        "zendesk": business.zendesk(_url(ports["zendesk"]), TENANTS),
        "invoices": business.invoices(_url(ports["invoices"]), TENANTS, authority),
    }


def _client(
    provider: str, service: dict[str, Any], redirect_uri: str, access_seconds: int, *, scopes: list[str]
) -> dict[str, Any]:
    return {
        "client_id": service["client_id"],
        "client_secret": service["client_secret"],
        "provider": provider,
        "redirect_uris": [redirect_uri],
        "grants": ["authorization_code", "refresh_token"],
        "access_seconds": access_seconds,
        "scopes": scopes,
    }


def _organization_client(organization: dict[str, Any], access_seconds: int, redirect_uri: str | None) -> dict[str, Any]:
    """Return a client for one organization, since Linear ties client credentials to the app's own workspace.

    With a *redirect_uri*, its people may also connect through it.
    """
    return {
        "client_id": secrets.token_hex(16),
        "client_secret": secrets.token_hex(16),
        "provider": "linear",
        "redirect_uris": [redirect_uri] if redirect_uri else [],
        "grants": ["client_credentials", *(["authorization_code", "refresh_token"] if redirect_uri else [])],
        "access_seconds": access_seconds,
        "scopes": LINEAR_SCOPES,
        "organization": organization["id"],
        "tenant": organization["url_key"],
    }


def _github(port: int, hook: str, app_key: str) -> dict[str, Any]:
    logins = [(tenant, login) for tenant in TENANTS for login in PEOPLE[tenant]]
    return {
        "url": _url(port),
        "app_id": 700001,
        "app_slug": APP_SLUG,
        "app_private_key_pem": app_key,
        "client_id": "Iv23" + secrets.token_hex(8),
        "client_secret": secrets.token_hex(20),
        "webhook_secret": secrets.token_hex(32),
        "webhook_url": hook,
        "installation_seconds": 3600,
        "users": [
            {"id": number, "login": login, "account": tenant}
            for number, (tenant, login) in enumerate(logins, start=1001)
        ],
        "installations": [
            {
                "id": number,
                "account": tenant,
                "account_id": number - 7000,
                "repositories": REPOSITORIES[tenant],
                "permissions": dict(APP_PERMISSIONS),
            }
            for number, tenant in enumerate(TENANTS, start=9001)
        ],
    }


def _linear(port: int, hook: str | None) -> dict[str, Any]:
    return {
        "url": _url(port),
        "client_id": secrets.token_hex(16),
        "client_secret": secrets.token_hex(16),
        "webhook_secret": secrets.token_hex(32),
        "webhook_url": hook,
        "organizations": [
            {
                "id": str(uuid.uuid4()),
                "name": tenant.capitalize(),
                "url_key": tenant,
                "teams": [
                    {"id": str(uuid.uuid4()), "key": "ENG", "name": "Engineering"},
                    {"id": str(uuid.uuid4()), "key": "OPS", "name": "Operations"},
                ],
                "users": [
                    {"id": str(uuid.uuid4()), "name": login, "email": f"{login}@{tenant}.example"}
                    for login in PEOPLE[tenant]
                ],
            }
            for tenant in TENANTS
        ],
    }


def _slack(port: int, hook: str) -> dict[str, Any]:
    return {
        "url": _url(port),
        "signing_secret": secrets.token_hex(16),
        "webhook_url": hook,
        "app_id": _slack_id("A"),
        "workspaces": [
            {
                "team_id": _slack_id("T"),
                "name": tenant,
                "bot_token": f"xoxb-{secrets.randbelow(10**12)}-{secrets.randbelow(10**12)}-{secrets.token_hex(12)}",
                "bot_user_id": _slack_id("U"),
                "bot_id": _slack_id("B"),
                "scopes": SLACK_SCOPES,
                "channels": [
                    {"id": _slack_id("C"), "name": "engineering"},
                    {"id": _slack_id("C"), "name": "general"},
                ],
            }
            for tenant in TENANTS
        ],
    }


def _standard_secret() -> str:
    """Return a secret in the format of Standard Webhooks: whsec_ and 24 bytes in base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


def _slack_id(kind: str) -> str:
    return kind + "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(10))


def make_app_key() -> str:
    """Return a private key for the GitHub App, in PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return pem.decode()


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"
