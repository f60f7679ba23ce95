"""Metadata of an authorization server: believed of its own issuer alone, and fetched through the guard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from identity.connections.discovery import Metadata, discover
from identity.connections.registration import Registration, register, service_account
from identity.connections.self_hosted import profile_for, unreadable
from identity.errors import BadInput, Misconfigured, Unavailable
from identity.http.addresses import AddressPolicy
from identity.http.client import Client
from identity.model import ProviderConnection
from identity.oauth.requests import Client as OAuthClient
from identity.oauth.requests import authorization_url, client_credentials_request, exchange_request, refresh_request
from identity.providers import PROFILES
from identity.providers.pace import Pace
from identity.providers.profile import Profile
from identity.secret import Secret
from tests.identity.published_providers import Server, server
from tests.loopback import LOOPBACK


@pytest.fixture(scope="module")
def playing() -> Iterator[Server]:
    with server() as playing:
        yield playing


def document(base: str, **changed: Any) -> dict[str, Any]:
    said = {
        "issuer": base,
        "authorization_endpoint": f"{base}/auth",
        "token_endpoint": f"{base}/token",
        "revocation_endpoint": f"{base}/revoke",
        "userinfo_endpoint": f"{base}/me",
        "authorization_response_iss_parameter_supported": True,
        "token_endpoint_auth_methods_supported": ["private_key_jwt", "client_secret_post"],
        "code_challenge_methods_supported": ["plain", "S256"],
    } | changed
    return {name: value for name, value in said.items() if value is not None}


def found(playing: Server, http: Client, **changed: Any) -> Metadata:
    playing.say(200, document(playing.url, **changed))
    return discover(http, playing.url)


def test_an_issuer_says_where_things_are(playing: Server, http: Client) -> None:
    metadata = found(playing, http)
    assert metadata.config() == {
        "issuer": playing.url,
        "sends_iss": "true",
        "pkce": "S256",
        "revocation_url": f"{playing.url}/revoke",
        "userinfo_url": f"{playing.url}/me",
    }
    assert metadata.client_auth(has_secret=True, has_key=True) == "client_secret_post"
    assert metadata.client_auth(has_secret=False, has_key=True) == "private_key_jwt"
    assert playing.asked[-1].path == "/.well-known/openid-configuration"


@pytest.mark.parametrize("named", [None, ["plain"], "S256", [], [7]])
def test_a_server_that_does_not_say_it_checks_challenges_is_not_taken_to(
    playing: Server, http: Client, named: Any
) -> None:
    assert "pkce" not in found(playing, http, code_challenge_methods_supported=named).config()


def test_without_openids_document_rfc_8414s_is_read(playing: Server, http: Client) -> None:
    playing.say(404, None)
    with pytest.raises(Misconfigured, match="no metadata"):
        discover(http, f"{playing.url}/tenant/1")
    assert [asked.path for asked in playing.asked[-2:]] == [
        "/tenant/1/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/tenant/1",
    ]


@pytest.mark.parametrize("status", [400, 401, 403, 405, 410, 429])
def test_a_server_that_refuses_openids_address_is_asked_at_rfc_8414s(http: Client, status: int) -> None:
    with server() as choosy:
        choosy.say(status, {"error": "no"})
        with pytest.raises(Unavailable, match=f"openid-configuration answers {status}"):
            discover(http, choosy.url)
        choosy.at["/.well-known/oauth-authorization-server"] = (404, None)
        with pytest.raises(Unavailable, match=f"openid-configuration answers {status}"):
            discover(http, choosy.url)
        choosy.at["/.well-known/oauth-authorization-server"] = (200, document(choosy.url))
        assert discover(http, choosy.url).token_url == f"{choosy.url}/token"


def test_a_server_that_fails_is_asked_again_later_and_not_elsewhere(http: Client) -> None:
    with server() as failing:
        failing.say(503, None)
        failing.at["/.well-known/oauth-authorization-server"] = (200, document(failing.url))
        with pytest.raises(Unavailable, match="answers 503"):
            discover(http, failing.url)


@pytest.mark.parametrize("issuer", ["https://other.example", None, 7, "{base}/"])
def test_a_document_of_another_issuer_is_not_believed(playing: Server, http: Client, issuer: Any) -> None:
    said = issuer.replace("{base}", playing.url) if isinstance(issuer, str) else issuer
    with pytest.raises(Misconfigured, match=r"another issuer.*add an `oauth2` connection"):
        found(playing, http, issuer=said)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("token_endpoint", "http://169.254.169.254/latest/meta-data"),
        ("token_endpoint", "https://user:password@as.example/token"),
        ("token_endpoint", "https://as.example:22/token"),
        ("revocation_endpoint", "ftp://as.example/revoke"),
        ("userinfo_endpoint", "file:///etc/passwd"),
        ("authorization_endpoint", "javascript:alert(1)"),
        ("token_endpoint", ["https://as.example/token"]),
        ("token_endpoint", None),
    ],
)
def test_an_address_that_would_not_be_fetched_is_not_stored(playing: Server, http: Client, name: str, url: Any) -> None:
    with pytest.raises(Misconfigured):
        found(playing, http, **{name: url})


def test_a_redirect_is_not_followed(playing: Server, http: Client) -> None:
    playing.say(302, document(playing.url))
    with pytest.raises(Unavailable, match="answers 302"):
        discover(http, playing.url)


@pytest.mark.parametrize("issuer", ["https://127.0.0.1/", "https://localhost", "http://as.example", "nonsense"])
def test_an_issuer_is_asked_through_the_guard(issuer: str) -> None:
    with Client(policy=AddressPolicy(), pool_size=1) as guarded, pytest.raises((Misconfigured, Unavailable)):
        discover(guarded, issuer)


def test_a_server_that_names_no_way_to_authenticate_means_basic(playing: Server, http: Client) -> None:
    metadata = found(playing, http, token_endpoint_auth_methods_supported=None)
    assert metadata.client_auth(has_secret=True, has_key=False) == "client_secret_basic"
    with pytest.raises(Misconfigured, match="nothing that fits"):
        metadata.client_auth(has_secret=False, has_key=True)


def test_a_client_whose_secret_comes_later_authenticates_by_what_the_server_takes(
    playing: Server, http: Client
) -> None:
    def chosen(*offered: str) -> str:
        metadata = found(playing, http, token_endpoint_auth_methods_supported=list(offered))
        return metadata.client_auth(has_secret=False, has_key=False)

    assert chosen("client_secret_post", "client_secret_basic") == "client_secret_basic"
    assert chosen("client_secret_post") == "client_secret_post"
    assert chosen("private_key_jwt", "tls_client_auth") == "private_key_jwt"
    with pytest.raises(Misconfigured, match="by none, and nothing here does that"):
        chosen("none")


def given(**changed: Any) -> Registration:
    return Registration(**{"id": "forge", "tenant": None, "client_id": "c", "scopes": (), **changed})


def test_a_connection_keeps_what_was_discovered(playing: Server, http: Client) -> None:
    metadata = found(playing, http)
    owner = register(given(), PROFILES["oidc"], LOOPBACK, metadata=metadata, has_secret=True, has_key=False)
    assert (owner.authorize_url, owner.token_url) == (f"{playing.url}/auth", f"{playing.url}/token")
    assert owner.api_url == playing.url
    assert owner.config["client_auth"] == "client_secret_post"
    assert owner.config["issuer"] == playing.url


@pytest.mark.parametrize(
    "changed",
    [
        {"api_url": "http://api.example"},
        {"api_url": "https://a:b@api.example"},
        {"token_url": "https://as.example:25/"},
        {"authorize_url": "https://as.example/#fragment"},
        {"config": {"userinfo_url": "http://10.0.0.1/"}},
        {"config": {"issuer": "http://as.example"}},
        {"config": {"client_auth": "tls_client_auth"}},
        {"config": {"signing_alg": "none"}},
        {"config": {"key_header": "X-Key: evil\r\nHost"}},
        {"config": {"key_scheme": "Bearer\r\nX: y"}},
        {"config": {"rotates": "false"}},  # GitHub's row says that, with its source
    ],
    ids=str,
)
def test_a_connection_that_could_not_be_used_is_not_made(changed: dict[str, Any]) -> None:
    with pytest.raises((Misconfigured, BadInput)):
        register(given(**changed), PROFILES["github"], LOOPBACK, metadata=None, has_secret=True, has_key=False)


_OWN = ProviderConnection(
    id="own",
    tenant=None,
    provider="oauth2",
    client_id="c",
    scopes=(),
    api_url="https://api.example",
    authorize_url="",
    token_url="https://as.example/token",
    config={},
)


def of_ones_own(**config: str) -> Profile:
    """The row as a connection to a server of one's own has it."""
    addresses = {"api_url": "https://api.example", "token_url": "https://as.example/token"}
    made = given(**addresses, config=config)
    owner = register(made, PROFILES["oauth2"], LOOPBACK, metadata=None, has_secret=True, has_key=False)
    return profile_for(PROFILES, owner)


def test_an_operator_says_what_only_the_documentation_of_a_server_of_ones_own_can() -> None:
    assert of_ones_own() == PROFILES["oauth2"]
    said = of_ones_own(rotates="false", grace_seconds="30", idle_limit_days="14", token_pace="100/60")
    assert (said.rotates, said.grace_seconds, said.idle_limit) == (False, 30, timedelta(days=14))
    assert said.token_pace == Pace(requests=100, per=timedelta(minutes=1), burst=10)
    said = of_ones_own(dead_codes="gone,session_over", bearer_types="BearerToken", empty_scope_means_asked="true")
    assert said.dead_codes == {"gone", "session_over"}
    assert (said.bearer_types, said.empty_scope_means_asked) == ({"bearertoken"}, True)


def test_an_operator_says_what_a_server_of_ones_own_wants_besides() -> None:
    """Auth0's audience, and RFC 8707's resource."""
    config = {"authorize.audience": "https://api.example", "authorize.prompt": "consent", "authorize.old": ""}
    config |= {"token.resource": "https://api.example/v1?a=b&c"}
    config |= {"authorize.uri": "u", "token.body": "b"}  # names that the functions of a library have for something else
    addresses = {"api_url": "https://api.example", "token_url": "https://as.example/token"}
    made = given(**addresses, authorize_url="https://as.example/authorize", config=config)
    owner = register(made, PROFILES["oauth2"], LOOPBACK, metadata=None, has_secret=True, has_key=False)
    profile = profile_for(PROFILES, owner)
    url = authorization_url(owner, profile, redirect_uri="https://a/cb", scopes=("read",), state="s", verifier="v" * 43)
    said = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    assert (said["audience"], said["prompt"], said["uri"]) == ("https://api.example", "consent", "u")
    assert "old" not in said
    client = OAuthClient(connection=owner, profile=profile, secret=Secret("s"), now=datetime.now(UTC), jti="j")
    for request in (
        exchange_request(client, code="c", verifier="v", redirect_uri="https://a/cb"),
        refresh_request(client, refresh_token=Secret("r")),
        client_credentials_request(client, scopes=("read",)),
    ):
        sent = dict(parse_qsl(request.body.decode()))
        assert (sent["resource"], sent["body"]) == ("https://api.example/v1?a=b&c", "b")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("authorize.state", "mine"),
        ("authorize.redirect_uri", "https://evil.example"),
        ("authorize.response_mode", "form_post"),
        ("authorize.code_challenge_method", "plain"),
        ("authorize.client_secret", "s"),
        ("authorize.client_assertion", "s"),
        ("authorize.a b", "c"),
        ("authorize.audience", "a\nb"),
        ("token.grant_type", "password"),
        ("token.client_secret", "s"),
        ("rotates", "no"),
        ("grace_seconds", "-1"),
        ("grace_seconds", "86400"),
        ("idle_limit_days", "0"),
        ("idle_limit_days", "14.5"),
        ("token_pace", "100"),
        ("token_pace", "1/60"),
        ("token_pace", "100/0"),
        ("dead_codes", "gone,"),
        ("dead_codes", "it is gone"),
        ("bearer_types", ""),
        ("empty_scope_means_asked", "yes"),
    ],
)
def test_what_an_operator_says_has_to_be_a_value(name: str, value: str) -> None:
    with pytest.raises(BadInput, match=name):
        of_ones_own(**{name: value})
    stored = replace(_OWN, config={name: value, "people": "p"})  # when nothing read it yet
    assert profile_for(PROFILES, stored) == PROFILES["oauth2"]
    assert [name in fault for fault in unreadable(PROFILES["oauth2"], stored.config)] == [True]


@pytest.mark.parametrize(
    "name", ["token.password", "token.api_key", "token.apiKey", "token.subject_token", "authorize.app-secret"]
)
def test_what_looks_like_a_secret_is_not_stored_in_clear(name: str) -> None:
    with pytest.raises(BadInput, match=f"{name} looks like a secret.*--client-secret-file") as refused:
        of_ones_own(**{name: "hunter2"})
    assert "hunter2" not in str(refused.value)
    assert of_ones_own(**{name: ""}) == of_ones_own()  # which takes out what was stored before
    stored = profile_for(PROFILES, replace(_OWN, config={name: "hunter2", "people": "p"}))
    assert "hunter2" in {**stored.token_extra, **stored.authorize_extra}.values(), "and goes on being sent until then"


@pytest.mark.parametrize("name", ["token.subject_token_type", "token.key_id", "token.requested_token_use"])
def test_what_names_a_kind_of_secret_is_none(name: str) -> None:
    assert of_ones_own(**{name: "x"}).token_extra == {name.removeprefix("token."): "x"}


def test_what_was_stored_for_a_provider_whose_row_says_it_changes_nothing() -> None:
    stored = replace(_OWN, provider="github", config={"rotates": "false", "token_pace": "as fast as you like"})
    assert profile_for(PROFILES, stored) == PROFILES["github"]
    assert unreadable(PROFILES["github"], stored.config) == []


@pytest.mark.parametrize(("name", "asked_for"), [("salesforce", "--api-url"), ("oidc", "--api-url")])
def test_what_a_row_cannot_know_is_asked_for(name: str, asked_for: str) -> None:
    with pytest.raises(BadInput, match=asked_for):
        register(given(), PROFILES[name], LOOPBACK, metadata=None, has_secret=True, has_key=False)
    with pytest.raises(BadInput, match="--issuer"):
        register(
            given(api_url="https://api.example"),
            PROFILES["oidc"],
            LOOPBACK,
            metadata=None,
            has_secret=True,
            has_key=False,
        )


def test_a_service_accounts_file_gives_its_key_and_name_and_not_its_address() -> None:
    file = '{"private_key": "PEM", "client_email": "r@p", "private_key_id": "k", "token_uri": "https://evil.example"}'
    key, config = service_account(Secret(file))
    assert key.reveal() == "PEM"
    assert config == {"service_account": "r@p", "key_id": "k"}
    for broken in ("canary", "[]", '{"private_key": "canary"}'):
        with pytest.raises(BadInput) as error:
            service_account(Secret(broken))
        assert "canary" not in str(error.value)
