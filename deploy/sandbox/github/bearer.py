"""Authentication and authorization of requests, as GitHub does it.

`Gate` answers as the service does: 401 for an invalid credential, 404 for objects the bearer may not know about, 403
for a missing permission.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import serialization
from flask import request
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from deploy.sandbox.github.model import Actor, Installation, Repository
from deploy.sandbox.github.store import Store
from deploy.sandbox.introspection import Introspection
from deploy.sandbox.surface import entry

DOCUMENTATION = "https://docs.github.com/rest"
JWT_LIFE_SECONDS = 600
ORDER = {"read": 1, "write": 2, "admin": 3}


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def body(self) -> dict[str, str]:
        return {"message": self.message, "documentation_url": DOCUMENTATION, "status": str(self.status)}


NOT_FOUND = (404, "Not Found")
BAD_CREDENTIALS = (401, "Bad credentials")
NOT_ACCESSIBLE = (403, "Resource not accessible by integration")
SUSPENDED = (403, "This installation has been suspended")


@dataclass(frozen=True, kw_only=True)
class Bearer:
    """The owner of an accepted credential."""

    author: Actor
    user: str | None  # None: an installation
    installations: tuple[Installation, ...]
    repositories: frozenset[str]
    permissions: dict[str, str] | None  # None: each installation's
    token: str


class Gate:
    def __init__(
        self,
        github: dict[str, Any],
        store: Store,
        introspection: Introspection,
        *,
        count: Callable[[Bearer], None],
    ) -> None:
        """*count* counts a request for its bearer, and raises Refused beyond the rate limit."""
        # The check is skipped because the key comes from our own world file.
        private = serialization.load_pem_private_key(
            github["app_private_key_pem"].encode(), password=None, unsafe_skip_rsa_key_validation=True
        )
        public = private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._key = RSAKey.import_key(public)
        self._issuers = {str(github["app_id"]), github["client_id"]}
        self._slug = github["app_slug"]
        self._store = store
        self._introspection = introspection
        self._count = count

    def app(self) -> None:
        """Authenticate the app by a JWT it signed. Raise Refused."""
        token = _presented()
        try:
            claims = jwt.decode(token, self._key, algorithms=["RS256"]).claims
        except (JoseError, ValueError) as error:
            raise Refused(401, "A JSON web token could not be decoded") from error
        expires, now = claims.get("exp"), self._store.now().timestamp()
        if str(claims.get("iss")) not in self._issuers:
            raise Refused(401, "'Issuer' claim ('iss') is not a known integration")
        if not isinstance(expires, int | float) or expires <= now:
            raise Refused(401, "'Expiration time' claim ('exp') must be a numeric value in the future")
        if expires > now + JWT_LIFE_SECONDS:
            raise Refused(401, "'Expiration time' claim ('exp') is too far in the future")
        entry().token_kind, entry().actor = "app", self._slug

    def bearer(self) -> Bearer:
        """Return the user or installation of the token. Raise Refused."""
        token = _presented()
        bearer = self._installation(token) if token.startswith("ghs_") else self._user(token)
        self._count(bearer)
        return bearer

    def repository(self, bearer: Bearer, full_name: str, **any_of: str) -> Repository:
        """Return a repository that the bearer sees with one of the named permissions. Raise Refused."""
        installation = next((row for row in bearer.installations if full_name in row.repositories), None)
        if installation is None or full_name not in bearer.repositories:
            raise Refused(*NOT_FOUND)
        if installation.suspended_at:
            raise Refused(*SUSPENDED)
        held = installation.permissions if bearer.permissions is None else bearer.permissions
        if not any(ORDER.get(held.get(name, ""), 0) >= ORDER[level] for name, level in any_of.items()):
            raise Refused(*NOT_ACCESSIBLE)
        return self._store.repositories[full_name]

    def _installation(self, token: str) -> Bearer:
        held = self._store.token(token)
        if held is None:
            raise Refused(*BAD_CREDENTIALS)
        installation = held.installation
        entry().token_kind, entry().actor, entry().tenant = (
            "installation",
            self._store.bot.login,
            installation.account.login,
        )
        if not held.alive or installation.deleted or held.expires_at <= self._store.now():
            raise Refused(*BAD_CREDENTIALS)
        if installation.suspended_at:
            raise Refused(*SUSPENDED)
        return Bearer(
            author=self._store.bot,
            user=None,
            installations=(installation,),
            repositories=held.repositories,
            permissions=held.permissions,
            token=token,
        )

    def _user(self, token: str) -> Bearer:
        described = self._introspection.describe(token)
        if not described["known"] or described["provider"] != "github":
            raise Refused(*BAD_CREDENTIALS)
        login = described["user"]
        entry().token_kind, entry().actor, entry().tenant = "user", login, described["tenant"]
        if not described["active"]:
            raise Refused(*BAD_CREDENTIALS)
        account = self._store.account_of[login]
        mine = tuple(
            row for row in self._store.installations.values() if row.account.login == account and not row.deleted
        )
        return Bearer(
            author=self._store.users[login],
            user=login,
            installations=mine,
            repositories=frozenset(name for row in mine for name in row.repositories),
            permissions=None,
            token=token,
        )


def _presented() -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() not in ("bearer", "token") or not token:
        raise Refused(401, "Requires authentication")
    return token.strip()
