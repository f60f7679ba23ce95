"""One case as an application: an OAuth 2 server, an API for its tokens, and signals."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, field, replace
from datetime import timedelta

import httpx
from flask import Blueprint, Flask, Response, abort, jsonify, request

from deploy.sandbox.auth.consent import consent_page
from deploy.sandbox.auth.control import control
from deploy.sandbox.auth.grants import Grants
from deploy.sandbox.auth.presentations import Presentations
from deploy.sandbox.auth.providers import Provider
from deploy.sandbox.auth.registry import Client, Person, Registry
from deploy.sandbox.auth.token import token_endpoint, unprocessed
from deploy.sandbox.fingerprint import fingerprint
from deploy.sandbox.journal import Clock, Journal
from deploy.sandbox.provider.cases import Case
from deploy.sandbox.provider.orders import Setting
from deploy.sandbox.surface import BadControl, entry, equip, json_body, touched

NAME = "provider"
ACKNOWLEDGE_SECONDS = 3  # Slack's time limit


@dataclass(frozen=True, kw_only=True)
class Habits:
    """The behaviour of the case's provider."""

    client_id: str
    client_secret: str | None = field(repr=False)
    user: str
    rotates: bool
    grace: float
    lifetime: int
    hook: str | None
    signing_secret: str | None = field(repr=False)


def create_provider(case: Case, habits: Habits, setting: Setting, *, journal: Journal, clock: Clock) -> Flask:
    app = Flask(__name__)
    provider = _provider(case, habits)
    client, person = _client(habits), _person(habits)
    registry = Registry([client], [person])
    grants = Grants(clock=clock, providers={NAME: provider})
    presentations = Presentations(journal, clock=clock)
    equip(
        app,
        journal=journal,
        names=lambda: {request.form.get("grant_type", "")},  # a fault may be limited to refreshes
        unprocessed=lambda: unprocessed(presentations, [provider]),
        orders=case.faults(setting),
    )
    app.register_blueprint(consent_page(provider, registry, grants))
    app.register_blueprint(token_endpoint(provider, registry, grants, presentations))
    app.register_blueprint(control(registry, grants, presentations))
    app.register_blueprint(_resources(grants, clock=clock))
    app.register_blueprint(_signals(case, habits, setting, clock=clock))

    @app.get("/_sandbox/case")
    def read_case() -> Response:
        return jsonify(case=case.number, name=case.name, says=case.says, seen=case.seen)

    @app.post("/_sandbox/grants")
    def grant() -> Response:
        """Issue the tokens of a consent without a browser: `{"scopes": [...]}`."""
        pair = grants.for_person(client, person, scopes=tuple(json_body("scopes")["scopes"]))
        answer = {"access_token": pair.access_token, "refresh_token": pair.refresh_token, "grant": pair.grant.id}
        return jsonify(answer | {"expires_in": habits.lifetime})

    return app


def _resources(grants: Grants, *, clock: Clock) -> Blueprint:
    """Serve an API for the tokens, and revocation, in shapes that fit several providers' profiles."""
    routes = Blueprint("resources", __name__)

    def whose() -> Person:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        access = grants.find(token) if scheme.lower() == "bearer" else None
        if access is None or not grants.is_live(access) or access.grant.person is None:
            refusal = jsonify(message="Bad credentials")
            refusal.status_code = 401
            abort(refusal)
        person = access.grant.person
        entry().actor, entry().token_kind = person.name, "user"
        return person

    @routes.get("/user")
    def user() -> Response:
        """GitHub's endpoint."""
        person = whose()
        return jsonify(id=int(person.id), login=person.name)

    @routes.get("/userinfo")
    def userinfo() -> Response:
        """OpenID Connect's endpoint (§5.3)."""
        person = whose()
        return jsonify(sub=person.id, preferred_username=person.name)

    @routes.post("/say")
    def say() -> Response:
        """A write. Its text is kept only in the log."""
        person = whose()
        touched(f"said by {person.name}")
        return jsonify(id=f"said-{entry().seq}")

    @routes.post("/revoke")
    def revoke() -> tuple[str, int]:
        """RFC 7009: 200 whether or not there was a token to end."""
        grants.kill(request.form.get("token", ""))
        return "", 200

    @routes.post("/app/installations/<int:number>/access_tokens")
    def installation(number: int) -> tuple[Response, int]:
        """GitHub's endpoint, without checking the app's assertion."""
        touched(f"installation {number}")
        ends = (clock() + timedelta(hours=1)).isoformat(timespec="seconds").replace("+00:00", "Z")
        return jsonify(token=f"ghs_{fingerprint(f'{number} {entry().seq}')[:36]}", expires_at=ends), 201

    @routes.get("/.well-known/oauth-authorization-server")
    @routes.get("/.well-known/openid-configuration")
    def metadata() -> Response:
        """RFC 8414."""
        issuer = request.host_url.rstrip("/")
        return jsonify(
            issuer=issuer,
            authorization_endpoint=f"{issuer}/authorize",
            token_endpoint=f"{issuer}/token",
            revocation_endpoint=f"{issuer}/revoke",
            userinfo_endpoint=f"{issuer}/userinfo",
            response_types_supported=["code"],
            grant_types_supported=["authorization_code", "refresh_token", "client_credentials"],
            code_challenge_methods_supported=["S256"],
            token_endpoint_auth_methods_supported=["client_secret_basic", "client_secret_post"],
        )

    return routes


def _signals(case: Case, habits: Habits, setting: Setting, *, clock: Clock) -> Blueprint:
    routes = Blueprint("signals", __name__)

    @routes.post("/_sandbox/signals")
    def send() -> Response:
        """Send the case's signals, or only `{"which": [2]}`, signed as Slack does. Return the statuses, or 0."""
        told = case.signals(replace(setting, now=clock()))
        which = json_body().get("which", range(1, len(told) + 1))
        if not told:
            raise BadControl(f"case {case.number} sends no signal")
        if habits.hook is None or habits.signing_secret is None:
            raise BadControl("nobody said where to (--hook) and signed with what (--signing-secret-file)")
        statuses = []
        for number, event in enumerate(told, start=1):
            if number not in which:
                continue
            body = json.dumps(event | {"event_id": f"Ev{case.number:02d}{number:02d}"}).encode()
            statuses.append(_deliver(habits.hook, habits.signing_secret, body, at=int(clock().timestamp())))
        return jsonify(statuses=statuses)

    return routes


def _deliver(hook: str, secret: str, body: bytes, *, at: int) -> int:
    """Sign and send as in https://docs.slack.dev/authentication/verifying-requests-from-slack"""
    digest = hmac.new(secret.encode(), f"v0:{at}:".encode() + body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "X-Slack-Request-Timestamp": str(at),
        "X-Slack-Signature": f"v0={digest}",
    }
    try:
        return httpx.post(hook, content=body, headers=headers, timeout=ACKNOWLEDGE_SECONDS).status_code
    except httpx.HTTPError:
        return 0


def _provider(case: Case, habits: Habits) -> Provider:
    return Provider(
        name=NAME,
        authorize_path="/authorize",
        token_path="/token",  # noqa: S106  (a path)
        access_prefix="sat_",
        refresh_prefix="srt_",
        refresh_seconds=case.idle_seconds,
        refresh_kills_access=case.refresh_kills_access,
        has_scopes=True,
        form_encoded=case.always_form,
        always_form=case.always_form,
        errors_in_200=case.errors_in_200,
        rotates=habits.rotates,
        grace_seconds=habits.grace,
    )


def _client(habits: Habits) -> Client:
    return Client(
        client_id=habits.client_id,
        client_secret=habits.client_secret,
        provider=NAME,
        redirect_uris=None,
        grants=frozenset({"authorization_code", "refresh_token", "client_credentials"}),
        access_seconds=habits.lifetime,
        scopes=None,
        organization=None,
    )


def _person(habits: Habits) -> Person:
    return Person(
        provider=NAME, id="1", name=habits.user, tenant="sandbox", organization=None, aliases=frozenset({habits.user})
    )
