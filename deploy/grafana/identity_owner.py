"""The identity owner's dashboard: credentials, as whom work is done, withdrawals and the record."""

from __future__ import annotations

from deploy.grafana.dashboard import Dashboard, Panel
from deploy.grafana.queries import gauge, quantile, rate, rate_or_none

_CREDENTIALS = (
    Panel(
        title="Refreshes",
        says="`dead`, `unknown` and `needs_person` cost a person a reconnect, `client_refused` is ours to mend.",
        queries={"{{provider}} {{outcome}}": rate("refreshes", "provider", "outcome")},
        unit="ops",
    ),
    Panel(
        title="Grants that were lost",
        says="Ended `dead`, `unknown` or `needs_person`. Several at once at one provider: look there, not at people.",
        queries={
            "{{provider}} {{outcome}}": rate(
                "refreshes", "provider", "outcome", where='outcome=~"dead|unknown|needs_person"'
            )
        },
        unit="ops",
    ),
    Panel(
        title="Paused connections",
        says="Their provider refuses our client, so they fetch no tokens. Runbook: AswhomClientRefused.",
        queries={"{{provider}}": gauge("connections_paused", "provider")},
    ),
    Panel(
        title="How long a refresh is waited for",
        says="For the lock, or for another's refresh; 95 of 100 wait less.",
        queries={"wait": quantile(0.95, "refresh_lock_wait_seconds")},
        unit="s",
    ),
    Panel(
        title="Leases",
        says="What openings of steps found. `needs_refresh` often: tokens are not kept alive ahead.",
        queries={"{{outcome}}": rate("leases", "outcome")},
        unit="ops",
    ),
    Panel(
        title="Requests at token endpoints",
        says="`waits`: for its pace, a pause it asked for, or its breaker.",
        queries={"{{outcome}}": rate_or_none("token_requests", "outcome")},
        unit="ops",
    ),
    Panel(
        title="Error codes that nobody knows",
        says="They kill no grant. The log has the code: it belongs in the provider's row.",
        queries={"{{provider}}": rate_or_none("token_errors_unrecognised", "provider")},
        unit="ops",
    ),
    Panel(
        title="In line for a token",
        says="Accounts and people whose turn at a token endpoint has not come, by its pace, a pause or an outage.",
        queries={"{{provider}}": gauge("token_line", "provider")},
    ),
    Panel(
        title="How long the line is",
        says="What whoever comes now is told to wait.",
        queries={"{{provider}}": gauge("token_line_seconds", "provider")},
        unit="s",
    ),
    Panel(
        title="Keep-alive",
        says="Grants that were looked at before they expire or are forgotten.",
        queries={"{{provider}} {{outcome}}": rate_or_none("keepalive", "provider", "outcome")},
        unit="ops",
    ),
    Panel(
        title="Keep-alive that is late",
        says="Grants whose look is due. Growing: the providers' pace is slower than the grants come due.",
        queries={"due": gauge("keepalive_due")},
    ),
    Panel(
        title="How late",
        says="Since the oldest of them has been due.",
        queries={"lag": gauge("keepalive_lag_seconds")},
        unit="s",
    ),
)

_WHO = (
    Panel(
        title="As whom steps ran",
        says="Delegated: as a user. Service: as the platform. `none`: nobody was let.",
        queries={"{{pattern}}": rate("steps", "pattern")},
        unit="ops",
    ),
    Panel(
        title="Steps that were refused",
        says="By policy, scope or revocation. `aswhom policy explain` says why.",
        queries={"{{action}}": rate_or_none("steps", "action", where='outcome="refused"')},
        unit="ops",
    ),
    Panel(
        title="Jobs that wait for people",
        says="For a consent or an approval.",
        queries={"{{wait}}": gauge("jobs_waiting", "wait", where='wait=~"consent|approval"')},
    ),
)

_CAPABILITIES = (
    Panel(
        title="Capabilities that were issued",
        says="Tokens for one action: for a step, or by an exchange.",
        queries={"{{how}}": rate_or_none("capabilities_issued", "how")},
        unit="ops",
        width=12,
    ),
    Panel(
        title="Capabilities that were shown to us",
        says="`first`: spent. `again`: the same request once more. `refused`, `unverified`: it does not hold.",
        queries={"{{outcome}}": rate_or_none("capability_spends", "outcome")},
        unit="ops",
        width=12,
    ),
)

_REVOCATION = (
    Panel(
        title="Until a revocation is effective",
        says="From its request's head to its commit; 99 of 100 are faster.",
        queries={"effective": quantile(0.99, "revocation_effective_seconds")},
        unit="s",
    ),
    Panel(
        title="Until nothing of it is in flight",
        says="From its commit to its receipt; 99 of 100 are faster.",
        queries={"quiesced": quantile(0.99, "revocation_seconds")},
        unit="s",
    ),
    Panel(
        title="The oldest signal with accounts left",
        says="How long ago it came. Runbook: AswhomSignalUnreached.",
        queries={"oldest": gauge("signal_unreached_seconds")},
        unit="s",
    ),
    Panel(
        title="The oldest without a receipt",
        says="How long it has been effective. Runbook: AswhomRevocationUnfinished.",
        queries={"oldest": gauge("revocation_unfinished_seconds")},
        unit="s",
    ),
    Panel(
        title="Still to end at providers",
        says="`stuck` until an operator acts. Runbook: AswhomWithdrawalsStuck.",
        queries={"{{state}}": gauge("withdrawals", "state")},
    ),
    Panel(
        title="Requests to end a credential",
        says="At its provider.",
        queries={"{{outcome}}": rate_or_none("withdrawals_asked", "outcome")},
        unit="ops",
    ),
    Panel(
        title="Signals of providers",
        says="Deliveries that revoked something.",
        queries={"{{source}}": rate_or_none("webhooks", "source", where='outcome="signal"')},
        unit="ops",
    ),
    Panel(
        title="Security Event Tokens",
        says="What became of them.",
        queries={"{{outcome}}": rate_or_none("security_events", "outcome")},
        unit="ops",
    ),
)

_RECORD = (
    Panel(
        title="Unsealed audit",
        says="How long the oldest record has been waiting for its seal.",
        queries={"unsealed": gauge("audit_unsealed_seconds")},
        unit="s",
    ),
    Panel(
        title="Signatures that were refused",
        says="By source. A burst after a secret was changed: the other side still signs with the old one.",
        queries={"{{source}}": rate_or_none("webhooks", "source", where='outcome="signature-refused"')},
        unit="ops",
    ),
    Panel(
        title="Keys that were refused",
        says="Requests to the agents' API that were answered 401 or 403.",
        queries={"{{status}}": rate_or_none("http_requests", "status", where='route=~"/v1/.*",status=~"401|403"')},
        unit="ops",
    ),
)

IDENTITY_OWNER = Dashboard(
    uid="aswhom-identity",
    title="Aswhom: identity",
    says="Credentials, as whom work is done, withdrawals and the record.",
    rows={
        "Credentials": _CREDENTIALS,
        "As whom": _WHO,
        "Capabilities": _CAPABILITIES,
        "Revocation": _REVOCATION,
        "The record": _RECORD,
    },
)
