"""The thirty cases as data: how a token endpoint behaved when a real system lost a grant.

A case consists of a provider's habits and the faults injected from its start. If the failure was not the provider's (a
lock, a crash, a stopped worker), the case's provider is one that punishes it by ending whatever is presented twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from deploy.sandbox.provider import orders
from deploy.sandbox.provider.orders import ALWAYS, GRANT, HTML, REFRESH, Faults, Signals


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way in which real systems lost grants."""

    number: int
    name: str
    says: str  # one line: what the provider does
    seen: str  # where
    faults: Faults = orders.none
    signals: Signals = orders.silent  # Slack's envelopes, sent on request
    rotates: bool = True
    grace: float = 0
    errors_in_200: bool = False
    always_form: bool = False
    refresh_kills_access: bool = False
    idle_seconds: int | None = None  # an unused refresh token expires after this
    ahead: timedelta = timedelta()  # how far the provider's clock is ahead


_ALL = (
    Case(
        number=1,
        name="many waiters refresh in turn",
        says="every refresh is answered late, and a token that is presented twice ends its grant",
        seen="NangoHQ/nango#2494",
        faults=orders.slow(ALWAYS),
    ),
    Case(
        number=2,
        name="a lock time-out is taken for bad credentials",
        says="every refresh is answered later than a waiter waits",
        seen="NangoHQ/nango#7000",
        faults=orders.slow(ALWAYS),
    ),
    Case(
        number=3,
        name="a database lock is held across the request",
        says="every refresh keeps its caller waiting, and whatever the caller holds meanwhile",
        seen="NangoHQ/nango#2859",
        faults=orders.slow(ALWAYS),
    ),
    Case(
        number=4,
        name="the lock is shorter than the refresh",
        says="every refresh takes longer than a short lock lives",
        seen="oauth2-proxy/oauth2-proxy#3456, #1580, #1992",
        faults=orders.slow(ALWAYS),
    ),
    Case(
        number=5,
        name="a slow provider at the top of the hour",
        says="the first refresh is slow, the next ones are quick",
        seen="infusionsoft/infusionsoft-php#220",
        faults=orders.slow(1),
    ),
    Case(
        number=6,
        name="a waiter goes on without a token",
        says="every refresh is answered late, and a request without a token is refused",
        seen="onyx-dot-app/onyx#13146",
        faults=orders.slow(ALWAYS),
    ),
    Case(
        number=7,
        name="parallel items burn a rotating token",
        says="a token that is presented twice ends its grant, and refusals come with status 200",
        seen="n8n-io/n8n#12742, #33092",
        errors_in_200=True,
    ),
    Case(
        number=8,
        name="a rotated token has nowhere to be saved",
        says="every refresh rotates; the one before is good for nothing, and presenting it ends the grant",
        seen="airbytehq/airbyte#3990, #18035",
        refresh_kills_access=True,
    ),
    Case(
        number=9,
        name="no lifetime at connect",
        says="no answer names a lifetime",
        seen="airbytehq/airbyte#83815",
        faults=orders.fields((GRANT, {}, ("expires_in",), ALWAYS), (REFRESH, {}, ("expires_in",), ALWAYS)),
    ),
    Case(
        number=10,
        name="a gateway time-out after the rotation",
        says="the first refresh rotates, and its answer is a gateway's 504",
        seen="intuit/QuickBooks-V3-DotNET-SDK#342",
        faults=orders.instead(504, HTML, rotated=True, content_type="text/html"),
    ),
    Case(
        number=11,
        name="no replay inside the grace window",
        says="the first refresh rotates and its answer is lost; the same token may be presented again for 30 s",
        seen="kurrent-io/kcap-cli#946",
        faults=orders.lost,
        grace=30,
    ),
    Case(
        number=12,
        name="an ambiguous time-out, and death of idleness",
        says="the first refresh rotates and its answer is lost; what nobody presents for 90 days ends",
        seen="ShipfoxHQ/shipfox#1215",
        faults=orders.lost,
        idle_seconds=90 * 86400,
    ),
    Case(
        number=13,
        name="a refusal with status 200",
        says="the refresh token is refused as GitHub does it: status 200 and bad_refresh_token",
        seen="lelylan/simple-oauth2#459, getsentry/junior#620, speakeasy-api/gram#6088",
        faults=orders.instead(200, {"error": "bad_refresh_token", "error_description": "expired"}, times=ALWAYS),
        errors_in_200=True,
    ),
    Case(
        number=14,
        name="a form where JSON was asked for",
        says="tokens come form-encoded, whatever was accepted",
        seen="dam-agents/dam#216",
        always_form=True,
    ),
    Case(
        number=15,
        name="a success without a token",
        says="the first refresh rotates and is answered with 200 and an empty object",
        seen="decocms/studio#6068",
        faults=orders.instead(200, {}, rotated=True),
    ),
    Case(
        number=16,
        name="a rate limit is taken for a dead grant",
        says="the first refresh is answered with 429 and Retry-After: 30",
        seen="decocms/studio#6122, #6200",
        faults=orders.instead(429, {"error": "invalid_grant", "message": "too many requests"}, retry_after="30"),
    ),
    Case(
        number=17,
        name="a rotated client secret wipes user tokens",
        says="the first refresh is answered with 401 invalid_client",
        seen="cloudfoundry/stratos#5636",
        faults=orders.instead(401, {"error": "invalid_client"}),
    ),
    Case(
        number=18,
        name="an empty refresh token overwrites the old one",
        says="refresh tokens stay good; the answers hold an empty one, then null, then none",
        seen="frappe/frappe#26266, modelcontextprotocol/python-sdk#2271",
        faults=orders.fields((REFRESH, {"refresh_token": ""}, (), 1), (REFRESH, {"refresh_token": None}, (), 1)),
        rotates=False,
    ),
    Case(
        number=19,
        name="a refresh without a lifetime is the last one",
        says="the first answer names a lifetime, those of refreshes do not",
        seen="oomol-lab/open-connector#266",
        faults=orders.fields((REFRESH, {}, ("expires_in",), ALWAYS)),
    ),
    Case(
        number=20,
        name="a lifetime that cannot be read",
        says='lifetimes come as "3600.5", then as "soon", then as a list, then as a negative number',
        seen="IBM/mcp-context-forge#4447",
        faults=orders.fields(
            (REFRESH, {"expires_in": "3600.5"}, (), 1),
            (REFRESH, {"expires_in": "soon"}, (), 1),
            (REFRESH, {"expires_in": [3600]}, (), 1),
            (REFRESH, {"expires_in": -1}, (), ALWAYS),
        ),
    ),
    Case(
        number=21,
        name="clocks that differ",
        says="the provider's clock is an hour ahead, its answers are late and name moments of that clock",
        seen="home-assistant/core#42487, lelylan/simple-oauth2#131",
        faults=orders.by_its_own_clock,
        ahead=timedelta(hours=1),
    ),
    Case(
        number=22,
        name="two rotations that end at the same moment",
        says="every refreshed token names the same end, and only the newest works",
        seen="slackapi/node-slack-sdk#2504",
        faults=orders.one_end,
        refresh_kills_access=True,
    ),
    Case(
        number=23,
        name="signals that arrive after the re-install",
        says="app_uninstalled and tokens_revoked of an hour ago are sent when they are ordered, in this order",
        seen="slackapi/bolt-js#1558, #673",
        signals=orders.late_signals,
    ),
    Case(
        number=24,
        name="a signal that names only some tokens",
        says="tokens_revoked names one user, app_uninstalled an enterprise and no team",
        seen="lobu-ai/lobu#1819, simstudioai/sim#7743",
        signals=orders.partial_signals,
    ),
    Case(
        number=25,
        name="an installation that is gone",
        says="an installation's token is refused with 403 (suspended) once, then with 404 for good",
        seen="vm0-ai/vm0#5647, curie-eng/curie#1257, ossf/allstar#314",
        faults=orders.suspended_then_gone,
    ),
    Case(
        number=26,
        name="a loser deletes the winner's token",
        says="the first refresh is refused with invalid_grant, late enough for someone else to win",
        seen="Menci/Floway#67, Wei-Shaw/sub2api#1382, xorbitsai/xagent#1454",
        faults=orders.late_refusal,
    ),
    Case(
        number=27,
        name="a dead grant is asked for again and again",
        says="every refresh is refused with invalid_grant",
        seen="can1357/oh-my-pi#9092",
        faults=orders.instead(400, {"error": "invalid_grant"}, times=ALWAYS),
    ),
    Case(
        number=28,
        name="the user kept only some scopes",
        says="refreshed tokens have the scope read alone, whatever was granted before",
        seen="openid/AppAuth-Android#490, oauth-wg/oauth-v2-1#63",
        faults=orders.fields((REFRESH, {"scope": "read"}, (), ALWAYS)),
    ),
    Case(
        number=29,
        name="a revoke that no worker heard",
        says="nothing odd: stop the workers, revoke, start them again, and look at what arrives",
        seen="celery/django-celery-results#423, readthedocs/common#109, celery/celery#818, #1246",
    ),
    Case(
        number=30,
        name="a lease that is taken for a fence",
        says="the first refresh outlives a lost lock, and a token that is presented twice ends its grant",
        seen="comet-ml/opik#8287",
        faults=orders.slow(1),
        refresh_kills_access=True,
    ),
)

CASES: Mapping[int, Case] = {case.number: case for case in _ALL}
