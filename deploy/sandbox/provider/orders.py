"""Building blocks of cases: faults in a provider's answers, and the signals it sends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from deploy.sandbox.faults import Fault, Mode

ALWAYS = 1_000_000
GRANT, REFRESH, INSTALLATION = "authorization_code", "refresh_token", "installation"
HTML = "<html><body><h1>504 Gateway Time-out</h1></body></html>"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The parameters a case's faults may depend on."""

    now: datetime  # by the provider's clock
    seconds: float  # delay of slow answers
    lifetime: int  # of an access token, in seconds


Faults = Callable[[Setting], list[Fault]]
Signals = Callable[[Setting], Sequence[dict[str, Any]]]


def none(_setting: Setting) -> list[Fault]:
    """Return no faults."""
    return []


def silent(_setting: Setting) -> Sequence[dict[str, Any]]:
    """Return no signals."""
    return ()


def slow(times: int) -> Faults:
    """Answer late, but rotate the tokens immediately."""
    return lambda it: [Fault(mode=Mode.DELAY, endpoint=REFRESH, seconds=it.seconds, times=times)]


def instead(status: int, body: Any, *, rotated: bool = False, times: int = 1, **headers: str) -> Faults:
    """Replace the answer, either after the tokens were *rotated* or without processing the request."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def order(_setting: Setting) -> list[Fault]:
        fault = Fault(mode=Mode.STATUS, endpoint=REFRESH, status=status, body=body, headers=named, times=times)
        fault.before = not rotated
        return [fault]

    return order


def lost(_setting: Setting) -> list[Fault]:
    """Rotate, then close the connection without an answer."""
    return [Fault(mode=Mode.DROP_RESPONSE, endpoint=REFRESH)]


def fields(*changes: tuple[str, dict[str, Any], tuple[str, ...], int]) -> Faults:
    """Set and drop fields of token answers: (endpoint, set, drop, times)."""
    return lambda _setting: [
        Fault(mode=Mode.FIELDS, endpoint=endpoint, fields=changed, drop=drop, times=times)
        for endpoint, changed, drop, times in changes
    ]


def by_its_own_clock(it: Setting) -> list[Fault]:
    """Answer late, with an absolute expiry time."""
    ends = {"expires_at": (it.now + timedelta(seconds=it.lifetime)).isoformat()}
    return [
        Fault(mode=Mode.FIELDS, endpoint=REFRESH, fields=ends, drop=("expires_in",), seconds=it.seconds, times=ALWAYS)
    ]


def one_end(it: Setting) -> list[Fault]:
    """Give the same expiry time in every answer."""
    ends = {"expires_at": (it.now + timedelta(seconds=it.lifetime)).isoformat()}
    return [Fault(mode=Mode.FIELDS, endpoint=REFRESH, fields=ends, drop=("expires_in",), times=ALWAYS)]


def suspended_then_gone(_setting: Setting) -> list[Fault]:
    """Refuse as GitHub does for a suspended, then a deleted installation."""
    suspended = {"message": "This installation has been suspended", "status": "403"}
    gone = {"message": "Not Found", "status": "404"}
    return [
        Fault(mode=Mode.STATUS, endpoint=INSTALLATION, status=403, body=suspended, before=True),
        Fault(mode=Mode.STATUS, endpoint=INSTALLATION, status=404, body=gone, before=True, times=ALWAYS),
    ]


def late_refusal(it: Setting) -> list[Fault]:
    """Refuse once, late, without processing the request."""
    refusal = {"error": "invalid_grant"}
    return [
        Fault(mode=Mode.STATUS, endpoint=REFRESH, status=400, body=refusal, before=True, seconds=it.seconds),
    ]


def _event(it: Setting, event: dict[str, Any], *, ago: timedelta = timedelta(), **envelope: Any) -> dict[str, Any]:
    told = {"type": "event_callback", "event": event, "event_time": int((it.now - ago).timestamp())}
    return told | {"team_id": "T0SANDBOX", "enterprise_id": None} | envelope


def late_signals(it: Setting) -> Sequence[dict[str, Any]]:
    """Report events of an hour ago, in the wrong order."""
    old = timedelta(hours=1)
    revoked = {"type": "tokens_revoked", "tokens": {"oauth": ["1"], "bot": []}}
    return (_event(it, {"type": "app_uninstalled"}, ago=old), _event(it, revoked, ago=old))


def partial_signals(it: Setting) -> Sequence[dict[str, Any]]:
    """Name one user's tokens, then an enterprise without a team."""
    revoked = {"type": "tokens_revoked", "tokens": {"oauth": ["1"], "bot": []}}
    return (
        _event(it, revoked),
        _event(it, {"type": "app_uninstalled"}, team_id=None, enterprise_id="E0SANDBOX"),
    )
