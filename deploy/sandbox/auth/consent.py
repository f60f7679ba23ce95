"""The authorization endpoint: a plain page on which a person is chosen and allows or denies."""

from dataclasses import dataclass
from urllib.parse import urlencode

from flask import Blueprint, Response, make_response, redirect, render_template_string, request
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response as BaseResponse

from deploy.sandbox.auth.grants import Grants
from deploy.sandbox.auth.providers import Provider
from deploy.sandbox.auth.registry import Client, Registry
from deploy.sandbox.surface import entry, touched

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Authorize · {{ provider }} sandbox</title>
<h1>Authorize {{ client_id }}</h1>
<p>This sandbox stands for {{ provider }}. The application asks for:
{% if scopes %}<code>{{ scopes|join(" ") }}</code>{% else %}what it was installed with{% endif %}.</p>
<form method="post" action="{{ action }}">
{% for name, value in hidden.items() %}<input type="hidden" name="{{ name }}" value="{{ value }}">
{% endfor %}<label for="user">Sign in as</label>
<select id="user" name="user">
{% for who in people %}<option value="{{ who.name }}"{% if who.name == preset %} selected{% endif %}>\
{{ who.name }} ({{ who.tenant }})</option>
{% endfor %}</select>
<button name="decision" value="allow">Allow</button>
<button name="decision" value="deny">Deny</button>
</form>
</html>
"""


class Malformed(Exception):
    """A request that must not lead to a redirect. The person is told, the client is not."""


class Declined(Exception):
    """A refusal reported to the client by redirect (RFC 6749 §4.1.2.1)."""

    def __init__(self, code: str, location: str) -> None:
        super().__init__(code)
        self.location = location


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A well-formed authorization request."""

    client: Client
    redirect_uri: str
    state: str | None
    challenge: str
    scopes: tuple[str, ...]
    acts_as_app: bool

    def hidden(self) -> dict[str, str]:
        fields = {
            "response_type": "code",
            "client_id": self.client.client_id,
            "redirect_uri": self.redirect_uri,
            "code_challenge": self.challenge,
            "code_challenge_method": "S256",
            "scope": " ".join(self.scopes),
            "actor": "app" if self.acts_as_app else "user",
        }
        return fields if self.state is None else fields | {"state": self.state}


def consent_page(provider: Provider, registry: Registry, grants: Grants) -> Blueprint:
    pages = Blueprint(f"{provider.name}_consent", __name__)

    @pages.get(provider.authorize_path, endpoint="authorize")
    def show() -> Response:
        ask = _read(request.args, provider, registry)
        page = render_template_string(
            PAGE,
            provider=provider.name,
            client_id=ask.client.client_id,
            scopes=ask.scopes,
            action=provider.authorize_path,
            hidden=ask.hidden(),
            people=registry.of(provider.name),
            preset=request.args.get("login") or request.args.get("login_hint"),
        )
        answer = make_response(page)
        answer.headers["Cache-Control"] = "no-store"
        return answer

    @pages.post(provider.authorize_path, endpoint="consent")
    def decide() -> BaseResponse:
        ask = _read(request.form, provider, registry)
        person = registry.person(provider.name, request.form.get("user", ""))
        if person is None:
            raise Malformed("choose who signs in")
        entry().actor, entry().tenant = person.name, person.tenant
        if request.form.get("decision") != "allow":
            raise Declined("access_denied", _location(ask.redirect_uri, ask.state, error="access_denied"))
        code = grants.consent(
            ask.client,
            person,
            redirect_uri=ask.redirect_uri,
            challenge=ask.challenge,
            scopes=ask.scopes,
            acts_as_app=ask.acts_as_app,
        )
        touched(f"{provider.name}:{person.name}")
        return redirect(_location(ask.redirect_uri, ask.state, code=code))

    @pages.errorhandler(Malformed)
    def malformed(error: Malformed) -> tuple[str, int]:
        return render_template_string("<!doctype html><title>Refused</title><p>{{ why }}</p>", why=str(error)), 400

    @pages.errorhandler(Declined)
    def declined(error: Declined) -> BaseResponse:
        return redirect(error.location)

    return pages


def _read(fields: MultiDict[str, str], provider: Provider, registry: Registry) -> Ask:
    client = registry.client(fields.get("client_id", ""), provider.name)
    if client is None or "authorization_code" not in client.grants:
        raise Malformed("the client is not known here")
    redirect_uri = fields.get("redirect_uri", "")
    if not client.may_return_to(redirect_uri):
        raise Malformed("the redirect_uri is not registered for this client")
    state = fields.get("state")

    def decline(code: str, description: str) -> Declined:
        return Declined(code, _location(redirect_uri, state, error=code, error_description=description))

    # GitHub has no response_type. If one is given, it must be code.
    if fields.get("response_type", "code" if not provider.has_scopes else "") != "code":
        raise decline("unsupported_response_type", "response_type must be code")
    challenge = fields.get("code_challenge", "")
    if fields.get("code_challenge_method") != "S256" or len(challenge) != 43:
        raise decline("invalid_request", "PKCE with S256 is required")
    scopes: tuple[str, ...] = ()
    if provider.has_scopes:
        scopes = asked_scopes(provider, fields.get("scope", ""))
        if not client.may_ask(scopes):
            raise decline("invalid_scope", "the client may not ask for this scope")
    return Ask(
        client=client,
        redirect_uri=redirect_uri,
        state=state,
        challenge=challenge,
        scopes=scopes,
        acts_as_app=provider.has_scopes and fields.get("actor") in ("app", "application"),
    )


def asked_scopes(provider: Provider, text: str) -> tuple[str, ...]:
    """Return the requested scopes, separated by comma or space, plus those the provider always grants."""
    return tuple(dict.fromkeys([*provider.always_granted, *text.replace(",", " ").split()]))


def _location(redirect_uri: str, state: str | None, **parameters: str) -> str:
    if state is not None:
        parameters["state"] = state
    return f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}{urlencode(parameters)}"
