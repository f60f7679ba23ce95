"""The token endpoint. Every credential presented to it is recorded with its outcome."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, jsonify, request

from deploy.sandbox.auth.consent import asked_scopes
from deploy.sandbox.auth.grants import Grant, Grants, Pair, Refused
from deploy.sandbox.auth.presentations import Presentations
from deploy.sandbox.auth.providers import PROVIDERS, Provider
from deploy.sandbox.auth.registry import Client, Registry
from deploy.sandbox.fingerprint import fingerprint
from deploy.sandbox.surface import entry, touched

# GitHub's error codes for the same refusals.
GITHUB_WORDS = {
    "invalid_client": "incorrect_client_credentials",
    "authorization_code": "bad_verification_code",
    "refresh_token": "bad_refresh_token",
}
CREDENTIAL_FIELDS = {"authorization_code": "code", "refresh_token": "refresh_token"}


def token_endpoint(provider: Provider, registry: Registry, grants: Grants, presentations: Presentations) -> Blueprint:
    endpoint = Blueprint(f"{provider.name}_token", __name__)

    @endpoint.post(provider.token_path, endpoint="token")
    def token() -> Response:
        kind, (client_id, secret) = _kind(provider), _client_credentials()
        with grants.lock:  # keeps presentations in the order of decisions
            try:
                client = _authenticate(provider, registry, client_id, secret)
                pair = _exchange(provider, grants, client, kind)
            except Refused as refusal:
                code = _word(provider, refusal.code, kind)
                _record(presentations, provider, kind, outcome=code, grant=refusal.grant)
                return _answer(provider, {"error": code, "error_description": refusal.description}, refusal.code)
            _record(presentations, provider, kind, outcome="ok", grant=pair.grant, issued=pair.access_token)
        touched(pair.grant.id)
        return _answer(provider, _success(provider, pair))

    return endpoint


def unprocessed(presentations: Presentations, providers: Iterable[Provider] = tuple(PROVIDERS.values())) -> None:
    """Record the credential of a request that a fault answered first."""
    for provider in providers:
        if request.path == provider.token_path:
            _record(presentations, provider, _kind(provider), outcome="not_processed", grant=None)


def _exchange(provider: Provider, grants: Grants, client: Client, kind: str) -> Pair:
    if kind not in ("authorization_code", "refresh_token", "client_credentials"):
        raise Refused("unsupported_grant_type", "the grant_type is not supported")
    if kind not in client.grants:
        raise Refused("unauthorized_client", "the client is not registered for this grant_type")
    match kind:
        case "authorization_code":
            redirect_uri = request.form.get("redirect_uri")
            if redirect_uri is None and provider.has_scopes:  # only GitHub makes it optional
                raise Refused("invalid_request", "redirect_uri is missing")
            verifier = request.form.get("code_verifier", "")
            return grants.redeem(client, _credential(kind), verifier=verifier, redirect_uri=redirect_uri)
        case "refresh_token":
            return grants.rotate(client, _credential(kind))
    scopes = asked_scopes(provider, request.form.get("scope", ""))
    if not client.may_ask(scopes):
        raise Refused("invalid_scope", "the client may not ask for this scope")
    if request.form.get("organization", client.organization) != client.organization:
        raise Refused("invalid_request", "the client is another organization's")
    return grants.for_app(client, scopes=scopes)


def _authenticate(provider: Provider, registry: Registry, client_id: str, secret: str) -> Client:
    client = registry.client(client_id, provider.name)
    if client is None or not client.knows(secret):
        raise Refused("invalid_client", "the client_id or client_secret is incorrect")
    return client


def _client_credentials() -> tuple[str, str]:
    basic = request.authorization
    if basic and basic.type == "basic":
        return basic.username or "", basic.password or ""
    return request.form.get("client_id", ""), request.form.get("client_secret", "")


def _kind(provider: Provider) -> str:
    # GitHub's code exchange has no grant_type.
    default = "authorization_code" if provider.errors_in_200 else ""
    return request.form.get("grant_type", default)


def _credential(kind: str) -> str:
    if kind == "client_credentials":
        return _client_credentials()[1]
    return request.form.get(CREDENTIAL_FIELDS.get(kind, ""), "")


def _record(
    presentations: Presentations,
    provider: Provider,
    kind: str,
    *,
    outcome: str,
    grant: Grant | None,
    issued: str | None = None,
) -> None:
    person = grant.person if grant else None
    entry().token_fingerprint = fingerprint(_credential(kind))
    if person:
        entry().actor, entry().tenant = person.name, person.tenant
    presentations.record(
        provider=provider.name,
        client_id=_client_credentials()[0],
        kind=kind,
        credential=_credential(kind),
        outcome=outcome,
        grant=grant.id if grant else None,
        user=person.name if person else None,
        refresh=entry().refresh,
        connect=entry().connect,
        issued=issued,
    )


def _word(provider: Provider, code: str, kind: str) -> str:
    if not provider.errors_in_200:
        return code
    return GITHUB_WORDS.get(kind if code == "invalid_grant" else code, code)


def _success(provider: Provider, pair: Pair) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "access_token": pair.access_token,
        "token_type": "Bearer" if provider.has_scopes else "bearer",
        "scope": " ".join(pair.grant.scopes),
    }
    if provider.names_lifetime:
        answer["expires_in"] = pair.grant.client.access_seconds
    if pair.refresh_token:
        answer["refresh_token"] = pair.refresh_token
        if provider.refresh_seconds:
            answer["refresh_token_expires_in"] = provider.refresh_seconds
    return answer


def _answer(provider: Provider, fields: dict[str, Any], refusal: str | None = None) -> Response:
    asked_for_json = "application/json" in request.headers.get("Accept", "")
    if provider.always_form or (provider.form_encoded and not asked_for_json):
        answer = Response(urlencode(fields), content_type="application/x-www-form-urlencoded; charset=utf-8")
    else:
        answer = jsonify(fields)
    if refusal and not provider.errors_in_200:
        answer.status_code = 401 if refusal == "invalid_client" else 400  # RFC 6749 §5.2
    answer.headers["Cache-Control"] = "no-store"
    return answer
