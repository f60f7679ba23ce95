"""Whose each credential is, by what the providers issued to whom: the ledger is not asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.demo.provision import GITHUB, SLACK, linear_of
from deploy.sandbox.fingerprint import fingerprint
from deploy.sandbox.world import PEOPLE
from identity.model import Scope, ScopeKind
from tests.system.rig import System

_MINT = re.compile(r"/app/installations/(?P<installation>\d+)/access_tokens")
TENANT_OF = {login: tenant for tenant, logins in PEOPLE.items() for login in logins}


@dataclass(frozen=True, kw_only=True)
class Holder:
    """An account, as its provider knows it."""

    tenant: str
    connection: str
    principal: str

    def is_under(self, scope: Scope) -> bool:
        """Whether a revocation of that scope is about its credentials. Of an agent it is about nobody's."""
        match scope.kind:
            case ScopeKind.TENANT:
                return scope.key == self.tenant
            case ScopeKind.CONNECTION:
                return scope.key == self.connection
            case ScopeKind.USER:
                return scope.key == self.principal
            case ScopeKind.ACCOUNT:
                return scope.key == f"{self.tenant}/{self.connection}/{self.principal}"
            case ScopeKind.AGENT:
                return False


@dataclass(frozen=True, kw_only=True)
class TokenRequest:
    """A request for an access token, as the provider logged it."""

    entry: Mapping[str, Any]  # a presentation, or GitHub's entry of an installation's token
    holder: Holder


def token_requests(system: System) -> list[TokenRequest]:
    """All that showed a credential of an account, refused ones too."""
    shown = [
        TokenRequest(entry=one, holder=_presenter(system, one))
        for one in system.sandbox("auth", "presentations")
        if one["grant"] is not None
    ]
    tenants = {str(one["id"]): one["account"] for one in system.world["github"]["installations"]}
    minted = [(_MINT.fullmatch(entry["path"]), entry) for entry in system.sandbox("github", "log")]
    return shown + [
        TokenRequest(entry=entry, holder=_holder(tenants[mint["installation"]], "github", "service"))
        for mint, entry in minted
        if mint is not None
    ]


def holders(system: System) -> Mapping[str, Holder]:
    """The holder of every access token that was ever issued, by the token's fingerprint."""
    issued = {one.entry["issued"]: one.holder for one in token_requests(system) if one.entry["issued"] is not None}
    workspaces = system.world["slack"]["workspaces"]
    return issued | {fingerprint(one["bot_token"]): _holder(one["name"], "slack", "service") for one in workspaces}


def _presenter(system: System, presentation: Mapping[str, Any]) -> Holder:
    provider = presentation["provider"]
    if (login := presentation["user"]) is not None:
        return _holder(TENANT_OF[login], provider, login)
    (client,) = [one for one in system.world["auth"]["clients"] if one["client_id"] == presentation["client_id"]]
    return _holder(client["tenant"], provider, "service")


def _holder(tenant: str, provider: str, who: str) -> Holder:
    through = {"github": GITHUB, "slack": SLACK, "linear": linear_of(tenant)}[provider]
    return Holder(tenant=tenant, connection=through, principal=f"{tenant}.{who}")
