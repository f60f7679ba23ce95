"""Registration of the sandbox's world in a ledger, as `aswhom tenants`, `connections` and `accounts` would do it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection

from identity.audit import Act
from identity.connect.consents import connect_service
from identity.connections.installations import add_installation
from identity.connections.secrets import CLIENT_SECRET, PRIVATE_KEY, WEBHOOK_SECRET
from identity.minting.service_credential import ServiceCredential
from identity.model import AccountKey, Credential, PrincipalKind, ProviderConnection
from identity.principals import ensure_principal, ensure_tenant
from identity.secret import Secret
from pipeline.accounts.connecting import wake_waiting
from pipeline.desk import connection_secrets
from pipeline.desk import connections as acts
from pipeline.desk.workflows import enable
from pipeline.runtime import Runtime

World = Mapping[str, Any]

BY = "admin:demo"

GITHUB, SLACK = "github", "slack"
GITHUB_SCOPES = ("issues:read", "issues:write", "pull_requests:read", "pull_requests:write")
LINEAR_SCOPES = ("read", "write", "issues:create", "comments:create")
SLACK_SCOPES = ("chat:write",)
SALESFORCE = "salesforce"
SALESFORCE_SCOPES = ("api", "refresh_token")
# The restricted key may read subscriptions with their invoices and annotate them, but cannot move money.
STRIPE_SCOPES = ("subscriptions:read", "invoices:read", "subscriptions:write")
ZENDESK_SCOPES = ("tickets:read", "tickets:write")


def linear_of(tenant: str) -> str:
    """Return the id of a tenant's own Linear connection. Linear ties client credentials to the app's workspace."""
    return f"linear-{tenant}"


def standard_of(tenant: str) -> str:
    """Return the id of the connection that a tenant's own system reports through."""
    return f"standard-{tenant}"


def callbacks(base_url: str, tenants: tuple[str, ...]) -> dict[str, str]:
    """Return the redirect URIs that the sandbox's clients register."""
    at = f"{base_url}/connect/callback/"
    return {
        "github": at + GITHUB,
        "linear": at + "linear",
        "salesforce": at + SALESFORCE,
        **{f"linear:{tenant}": at + linear_of(tenant) for tenant in tenants},
    }


class Provision:
    """Registration of one world through one runtime."""

    def __init__(self, runtime: Runtime, world: World, *, now: datetime) -> None:
        self._runtime = runtime
        self._world = world
        self._now = now

    def everything(self) -> None:
        """Register tenants, people, connections, service accounts and workflows."""
        github, slack = self._world["github"], self._world["slack"]
        auth = self._world["auth"]["url"]
        self._connection(
            GITHUB,
            provider="github",
            tenant=None,
            client_id=github["client_id"],
            scopes=GITHUB_SCOPES,
            api_url=github["url"],
            authorize_url=f"{auth}/github/login/oauth/authorize",
            token_url=f"{auth}/github/login/oauth/access_token",
            config={"app_id": str(github["app_id"])},
            secrets={
                CLIENT_SECRET: github["client_secret"],
                WEBHOOK_SECRET: github["webhook_secret"],
                PRIVATE_KEY: github["app_private_key_pem"],
            },
        )
        self._connection(
            SLACK,
            provider="slack",
            tenant=None,
            client_id=slack["app_id"],
            scopes=SLACK_SCOPES,
            api_url=f"{slack['url']}/api",
            authorize_url=f"{slack['url']}/oauth/v2/authorize",
            token_url=f"{slack['url']}/api/oauth.v2.access",
            config={},
            secrets={WEBHOOK_SECRET: slack["signing_secret"]},
        )
        sales = self._world["salesforce"]
        self._connection(
            SALESFORCE,
            provider="salesforce",
            tenant=None,
            client_id=sales["client_id"],
            scopes=SALESFORCE_SCOPES,
            api_url=sales["url"],
            authorize_url=f"{auth}/salesforce/services/oauth2/authorize",
            token_url=f"{auth}/salesforce/services/oauth2/token",
            config={"revocation_url": f"{auth}/salesforce/services/oauth2/revoke"},
            secrets={CLIENT_SECRET: sales["client_secret"]},
        )
        for organization in self._world["linear"]["organizations"]:
            self._tenant(organization)
            self._back_office(organization["url_key"])

    def _tenant(self, organization: Mapping[str, Any]) -> None:
        tenant: str = organization["url_key"]
        people = [user["login"] for user in self._world["github"]["users"] if user["account"] == tenant]
        service = f"{tenant}.service"

        def register(c: Connection) -> None:
            ensure_tenant(c, id=tenant, name=organization["name"], now=self._now)
            person = partial(ensure_principal, c, tenant=tenant, now=self._now)
            person(id=service, kind=PrincipalKind.SERVICE, name="service")
            for login in people:
                person(id=f"{tenant}.{login}", kind=PrincipalKind.USER, name=login)

        self._runtime.database.write(register)
        (client,) = [one for one in self._world["auth"]["clients"] if one.get("tenant") == tenant]
        auth = self._world["auth"]["url"]
        self._connection(
            linear_of(tenant),
            provider="linear",
            tenant=tenant,
            client_id=client["client_id"],
            scopes=LINEAR_SCOPES,
            api_url=self._world["linear"]["url"],
            authorize_url=f"{auth}/linear/oauth/authorize",
            token_url=f"{auth}/linear/oauth/token",
            config={"revocation_url": f"{auth}/linear/oauth/revoke"},
            secrets={CLIENT_SECRET: client["client_secret"], WEBHOOK_SECRET: self._world["linear"]["webhook_secret"]},
        )
        (installation,) = [one for one in self._world["github"]["installations"] if one["account"] == tenant]
        (workspace,) = [one for one in self._world["slack"]["workspaces"] if one["name"] == tenant]
        self._install(GITHUB, str(installation["id"]), tenant)
        self._install(SLACK, workspace["team_id"], tenant)
        self._install(linear_of(tenant), organization["id"], tenant)
        account = partial(self._service_account, tenant)
        app = ServiceCredential(kind=Credential.INSTALLATION, external_id=str(installation["id"]))
        bot = ServiceCredential(kind=Credential.STATIC, token=Secret(workspace["bot_token"]))
        account(GITHUB, "github", app, GITHUB_SCOPES)
        account(linear_of(tenant), "linear", ServiceCredential(kind=Credential.CLIENT_CREDENTIALS), LINEAR_SCOPES)
        account(SLACK, "slack", bot, SLACK_SCOPES)
        self._switch_on(tenant, "link_pull_request", {"label_rules": self._rules(organization, workspace)})
        repository = installation["repositories"][0]
        digest = {"repo": repository, "channel": workspace["channels"][0]["id"]}
        self._switch_on(tenant, "daily_digest", digest)
        self._switch_on(tenant, "answer_mention", {})
        self._switch_on(tenant, "link_on_command", {"label_rules": self._rules(organization, workspace)})
        for announcing in ("close_issues", "announce_review"):
            self._switch_on(tenant, announcing, {"channel": workspace["channels"][0]["id"]})
        self._switch_on(tenant, "file_from_slack", {"team_id": organization["teams"][0]["id"]})

    def _back_office(self, tenant: str) -> None:
        """Register billing and support with a token each that an admin made, and the tenant's own reporting system."""
        (books,) = [one for one in self._world["stripe"]["accounts"] if one["tenant"] == tenant]
        (desk,) = [one for one in self._world["zendesk"]["desks"] if one["subdomain"] == tenant]
        (own,) = [one for one in self._world["standard"] if one["tenant"] == tenant]
        for provider, scopes, token in (
            ("stripe", STRIPE_SCOPES, books["restricted_key"]),
            ("zendesk", ZENDESK_SCOPES, desk["token"]),
        ):
            self.by_key(provider, tenant, scopes, self._world[provider]["url"], Secret(token))
        self._without_consent(standard_of(tenant), "standard", tenant, (), "", {WEBHOOK_SECRET: own["secret"]})
        self._switch_on(tenant, "billing_reconciliation", {"page": 3})
        self._switch_on(tenant, "update_opportunity", {"stages": {"won": "Closed Won", "lost": "Closed Lost"}})
        self._switch_on(tenant, "open_ticket", {"tags": ["aswhom"]})

    def by_key(self, provider: str, tenant: str, scopes: tuple[str, ...], url: str, key: Secret) -> None:
        """Register a tenant's upstream at which its service acts by a key that an admin made."""
        id = f"{provider}-{tenant}"
        self._without_consent(id, provider, tenant, scopes, url, {})
        credential = ServiceCredential(kind=Credential.STATIC, token=key)
        self._service_account(tenant, id, provider, credential, scopes)

    def _without_consent(
        self, id: str, provider: str, tenant: str, scopes: tuple[str, ...], url: str, secrets: Mapping[str, str]
    ) -> None:
        """Register a provider connection without a consent flow."""
        self._connection(
            id,
            provider=provider,
            tenant=tenant,
            client_id="none",
            scopes=scopes,
            api_url=url,
            authorize_url="",
            token_url="",
            config={},
            secrets=secrets,
        )

    @staticmethod
    def _rules(organization: Mapping[str, Any], workspace: Mapping[str, Any]) -> dict[str, Any]:
        """Return rules that file `bug` as the engineer and `infra` as the platform."""
        rule = {"team_id": organization["teams"][0]["id"], "channel": workspace["channels"][0]["id"]}
        return {"bug": rule, "infra": {**rule, "attribute_to_user": False}}

    def _connection(self, id: str, *, secrets: Mapping[str, str], **fields: Any) -> None:
        owner = ProviderConnection(id=id, **fields)
        given = {name: Secret(value) for name, value in secrets.items()}
        sealed = connection_secrets.seal(self._runtime.vault, owner, given, ids=self._runtime.ids, now=self._now)
        self._runtime.database.write(partial(acts.add, owner=owner, secrets=sealed, act=self._act()))

    def _install(self, connection: str, external_id: str, tenant: str) -> None:
        add = partial(add_installation, owner=connection, external_id=external_id, tenant=tenant, now=self._now)
        self._runtime.database.write(add)

    def _service_account(
        self,
        tenant: str,
        connection: str,
        provider: str,
        credential: ServiceCredential,
        scopes: tuple[str, ...],
    ) -> None:
        connect_service(
            self._runtime.database,
            self._runtime.vault,
            AccountKey(tenant=tenant, connection=connection, principal=f"{tenant}.service"),
            credential,
            self._act(),
            id=self._runtime.ids("acc"),
            provider=provider,
            scopes=scopes,
            also=wake_waiting,
        )

    def _switch_on(self, tenant: str, name: str, config: Mapping[str, Any]) -> None:
        if name not in {declared.name for declared in self._runtime.workflows}:
            return  # not installed here
        declared = self._runtime.workflows.get(name)
        on = partial(enable, tenant=tenant, workflow=declared, act=self._act(), config=config)
        self._runtime.database.write(on)

    def _act(self) -> Act:
        return Act(audit_id=self._runtime.ids("aud"), by=BY, now=self._now)
