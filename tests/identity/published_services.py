"""How services get their tokens, as each provider's pages have it: the requests, and the answers. Not from our rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from identity.model import Credential

Json = Mapping[str, Any]
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass(frozen=True, kw_only=True)
class Service:
    """One way in which one provider gives a service its tokens."""

    provider: str
    credential: Credential
    config: Mapping[str, str] = field(default_factory=dict)
    external_id: str | None = None
    resources: tuple[str, ...] | None = None
    scopes: tuple[str, ...] = ("a", "b")
    path: str = "/token"
    form: Json | None = None  # the whole form, without the client's own proof; None: it is no form
    document: Json | None = None  # a JSON body
    claims: Json = field(default_factory=dict)  # of what is signed, some; {base} is the server's address
    unclaimed: frozenset[str] = frozenset()
    longest: int = 0  # seconds that what is signed may live
    answer: Json
    granted: tuple[str, ...] | None = None  # what it says was granted, where that is not all that was asked
    answered: int = 200
    refused: tuple[int, Json] | None  # its consent is gone; None: nothing tells that from a wrong key or clock
    assertion_refused: tuple[tuple[int, Json], ...] = ()  # the key, the clock or the consent is not as it should be
    bad_client: tuple[int, Json]

    def __str__(self) -> str:
        return f"{self.provider} {self.credential}"


_MINTED = {"access_token": "at-2", "token_type": "Bearer", "expires_in": 3599}
_GONE = (400, {"error": "invalid_grant"})
_BAD_CLIENT = (401, {"error": "invalid_client"})
# RFC 7523 §3.1
_BAD_ASSERTION = (400, {"error": "invalid_grant", "error_description": "the assertion is not valid"})

SERVICES = (
    Service(
        provider="github",
        credential=Credential.INSTALLATION,
        config={"app_id": "12345"},
        external_id="9001",
        resources=("web", "api"),
        scopes=("issues:read", "issues:write", "contents:read"),
        path="/api/app/installations/9001/access_tokens",
        document={"repositories": ["web", "api"], "permissions": {"issues": "write", "contents": "read"}},
        claims={"iss": "12345"},
        longest=600,
        answer={
            "token": "at-2",
            "expires_at": "2027-01-01T00:00:00Z",
            "permissions": {"issues": "write", "metadata": "read"},
        },
        granted=("issues:read", "issues:write"),
        answered=201,
        refused=(404, {"message": "Not Found"}),
        bad_client=(401, {"message": "A JSON web token could not be decoded"}),
    ),
    Service(
        provider="slack",
        credential=Credential.ROTATING,
        form={"grant_type": "refresh_token", "refresh_token": "rt-1"},
        answer={
            "ok": True,
            "access_token": "at-2",
            "refresh_token": "rt-2",
            "expires_in": 43200,
            "token_type": "bot",
            "scope": "a,b",
            "bot_user_id": "U1",
            "team": {"id": "T1"},
        },
        refused=(200, {"ok": False, "error": "invalid_refresh_token"}),
        bad_client=(200, {"ok": False, "error": "bad_client_secret"}),
    ),
    Service(
        provider="google",
        credential=Credential.JWT_BEARER,
        config={"service_account": "robot@project.iam.gserviceaccount.com", "key_id": "k1"},
        external_id="ada@acme.example",
        form={"grant_type": JWT_BEARER},
        claims={
            "iss": "robot@project.iam.gserviceaccount.com",
            "sub": "ada@acme.example",
            "scope": "a b",
            "aud": "{base}/token",
        },
        longest=3600,
        answer=_MINTED,
        refused=None,
        # A key that it does not know. A wrong clock and an account that is gone have the same code.
        # https://github.com/googleapis/google-api-php-client/issues/1501
        # And: the service account may not act for the people of this account's domain, or not with these scopes.
        assertion_refused=(
            (400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}),
            (
                401,
                {
                    "error": "unauthorized_client",
                    "error_description": "Client is unauthorized to retrieve access tokens using this method, or "
                    "client not authorized for any of the scopes requested.",
                },
            ),
        ),
        bad_client=(401, {"error": "invalid_client", "error_description": "The OAuth client was not found."}),
    ),
    Service(
        provider="salesforce",
        credential=Credential.JWT_BEARER,
        external_id="ada@acme.example",
        form={"grant_type": JWT_BEARER},
        claims={"iss": "the-client", "sub": "ada@acme.example", "aud": "https://login.salesforce.com"},
        unclaimed=frozenset({"scope"}),
        longest=180,
        # No lifetime, and no refresh token.
        answer={"access_token": "at-2", "token_type": "Bearer", "instance_url": "https://acme.my.salesforce.com"},
        refused=None,
        assertion_refused=((400, {"error": "invalid_grant", "error_description": "invalid assertion"}),),
        bad_client=(400, {"error": "invalid_client_id", "error_description": "client identifier invalid"}),
    ),
    Service(
        provider="linear",
        credential=Credential.CLIENT_CREDENTIALS,
        form={"grant_type": "client_credentials", "scope": "a,b", "actor": "app"},
        answer={"access_token": "at-2", "token_type": "Bearer", "expires_in": 2591999, "scope": "a b"},
        refused=_GONE,
        bad_client=_BAD_CLIENT,
    ),
    *(
        Service(
            provider=name,
            credential=Credential.CLIENT_CREDENTIALS,
            form={"grant_type": "client_credentials", "scope": "a b"},
            answer=_MINTED,
            refused=_GONE,
            bad_client=_BAD_CLIENT,
        )
        for name in ("oidc", "oauth2")
    ),
    *(
        Service(
            provider=name,
            credential=Credential.JWT_BEARER,
            form={"grant_type": JWT_BEARER, "scope": "a b"},
            claims={"iss": "the-client", "aud": "{base}/token"},
            unclaimed=frozenset({"scope", "sub"}),
            longest=180,
            answer=_MINTED,
            refused=None,
            assertion_refused=(_BAD_ASSERTION,),
            bad_client=_BAD_CLIENT,
        )
        for name in ("oidc", "oauth2")
    ),
)

#: Keys and tokens that nothing renews, and the header in which each is shown; with the connection's own configuration.
KEYS: tuple[tuple[str, Mapping[str, str], tuple[str, str]], ...] = (
    ("linear", {}, ("authorization", "key-1")),
    ("slack", {}, ("authorization", "Bearer key-1")),
    ("oauth2", {}, ("authorization", "Bearer key-1")),
    ("oauth2", {"key_header": "X-Api-Key", "key_scheme": ""}, ("X-Api-Key", "key-1")),
)
