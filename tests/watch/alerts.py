"""What each alert is for: series that set it off, what it says then, and series it lets pass.

A value a minute, in promtool's notation: `0+6x20` is 0, 6, 12 … for 20 minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

A = 'job="aswhom",instance="a:1"'
ROUTE = 'route="/webhooks/<source>/<connection>"'
EVENTS = 'route="/events/<transmitter>"'


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One alert. It is looked at *after* so many minutes. *good* is None for the one that is to fire always."""

    after: int
    bad: Mapping[str, str]
    says: str
    good: Mapping[str, str] | None
    labels: Mapping[str, str] | None = None


ALERTS: Mapping[str, Alert] = {
    "AswhomAlwaysFiring": Alert(after=0, bad={}, says="alerts arrive", good=None),
    "AswhomProcessDown": Alert(
        after=3,
        bad={f"up{{{A}}}": "0x5"},
        labels={"job": "aswhom", "instance": "a:1"},
        says="a:1 does not answer",
        good={f"up{{{A}}}": "1 0 1x5", 'up{job="another"}': "0x5"},
    ),
    "AswhomProcessMissing": Alert(
        after=3,
        bad={f'up{{{A},process="{one}"}}': "1x5" for one in ("web", "worker-1", "housekeeping")},
        labels={"job": "aswhom", "process": "revocations"},
        says="no process revocations is scraped",
        good={f'up{{{A},process="{one}"}}': "0x5" for one in ("web", "worker-2", "revocations")},
    ),
    "AswhomProcessRestarts": Alert(
        after=5,
        bad={f"process_start_time_seconds{{{A}}}": "1 2 3 4 4x5"},
        labels={"job": "aswhom", "instance": "a:1"},
        says="a:1 was started 3 times in 15 minutes",
        good={f"process_start_time_seconds{{{A}}}": "1 2 2x5"},
    ),
    "AswhomNoHousekeeping": Alert(
        after=3,
        bad={f"up{{{A}}}": "1x5"},
        says="no housekeeping process is scraped",
        good={'aswhom_duty_stuck{duty="measure"}': "0x5"},
    ),
    "AswhomDutyStuck": Alert(
        after=3,
        bad={'aswhom_duty_stuck{duty="dispatch"}': "1x5"},
        labels={"duty": "dispatch"},
        says="the duty dispatch is past its deadline",
        good={'aswhom_duty_stuck{duty="dispatch"}': "1 0x5"},
    ),
    "AswhomUnmeasured": Alert(
        after=6,
        bad={
            'aswhom_duty_seconds_count{duty="measure",outcome="done"}': "12x10",
            'aswhom_duty_seconds_count{duty="measure-schedules",outcome="done"}': "0+12x10",
            'aswhom_duty_seconds_count{duty="prune",outcome="done"}': "0x10",
        },
        labels={"duty": "measure"},
        says="the duty measure was not done for minutes: alerts on its gauges are blind",
        good={
            'aswhom_duty_seconds_count{duty="measure",outcome="done",instance="lost:1"}': "12x10",
            'aswhom_duty_seconds_count{duty="measure",outcome="done",instance="well:1"}': "0+12x10",
        },
    ),
    "AswhomDutyFails": Alert(
        after=30,
        bad={
            f'aswhom_duty_seconds_count{{{A},duty="prune",outcome="failed"}}': "0+3x30",
            f'aswhom_duty_seconds_count{{{A},duty="prune",outcome="done"}}': "0+1x30",
        },
        labels={"duty": "prune", "instance": "a:1"},
        says="the duty prune of a:1 keeps failing",
        good={
            f'aswhom_duty_seconds_count{{{A},duty="prune",outcome="failed"}}': "0+1x30",
            f'aswhom_duty_seconds_count{{{A},duty="prune",outcome="done"}}': "0+3x30",
        },
    ),
    "AswhomDiskFull": Alert(
        after=6,
        bad={f"aswhom_data_free_bytes{{{A}}}": "400000000x10"},
        labels={"instance": "a:1"},
        says="381.5MiB are free where the data directory of a:1 lies",
        good={f"aswhom_data_free_bytes{{{A}}}": "600000000x10"},
    ),
    "AswhomBackupOld": Alert(
        after=200,
        bad={
            'kube_cronjob_created{namespace="live",cronjob="aswhom-kept"}': "0x210",
            'kube_cronjob_status_last_successful_time{namespace="live",cronjob="aswhom-dump"}': "0x210",
            'kube_cronjob_status_last_successful_time{namespace="trial",cronjob="aswhom-kept"}': "0+60x210",
        },
        labels={"namespace": "live", "cronjob": "aswhom-kept"},
        says="aswhom-kept of live has not succeeded for 3h 20m 0s",
        good={
            'kube_cronjob_created{cronjob="aswhom-kept"}': "0x210",
            'kube_cronjob_status_last_successful_time{cronjob="aswhom-kept"}': "0x59 3600x59 7200x100",
            'kube_cronjob_created{cronjob="other"}': "0x210",
        },
    ),
    "AswhomRetentionBehind": Alert(
        after=12,
        bad={'aswhom_retention_behind_seconds{what="audit"}': "90000x15"},
        labels={"what": "audit"},
        says="of audit, what was to be forgotten has been left over for 1d 1h 0m 0s",
        good={'aswhom_retention_behind_seconds{what="audit"}': "3600x15"},
    ),
    "AswhomBellsFail": Alert(
        after=10,
        bad={'aswhom_bells_total{outcome="failed"}': "0+6x20"},
        says="the broker takes no messages; work waits in the ledger",
        good={'aswhom_bells_total{outcome="rung"}': "0+6x20", 'aswhom_bells_total{outcome="failed"}': "3x20"},
    ),
    "AswhomUnreadableMessages": Alert(
        after=5,
        bad={"aswhom_unreadable_messages_total": "0 0 1x5"},
        says="something else writes into the queues of the broker",
        good={"aswhom_unreadable_messages_total": "1x20"},
    ),
    "AswhomWorkerDeaf": Alert(
        after=4,
        bad={f"aswhom_consumer_tried_timestamp_seconds{{{A}}}": "0 60 60x10"},
        labels={"job": "aswhom", "instance": "a:1"},
        says="a:1 has asked the broker for nothing in 3m 0s",
        good={
            f"aswhom_consumer_tried_timestamp_seconds{{{A}}}": "0+60x10",
            f"aswhom_consumer_listened_timestamp_seconds{{{A}}}": "0x10",
        },
    ),
    "AswhomWorkersCutOff": Alert(
        after=8,
        bad={
            f"aswhom_consumer_listened_timestamp_seconds{{{A}}}": "0x20",
            'aswhom_consumer_listened_timestamp_seconds{job="aswhom",instance="b:1"}': "0+60x20",
            'aswhom_bells_total{outcome="failed"}': "3x20",
        },
        says="1 worker(s) try to reach the broker, and do not",
        good={
            f"aswhom_consumer_listened_timestamp_seconds{{{A}}}": "0x20",
            'aswhom_bells_total{outcome="failed"}': "0+6x20",
        },
    ),
    "AswhomConsumerFails": Alert(
        after=6,
        bad={f"aswhom_consumer_failures_total{{{A}}}": "0 2 4 4x5"},
        labels={"instance": "a:1"},
        says="the consumer of a:1 keeps failing by no fault of the broker",
        good={f"aswhom_consumer_failures_total{{{A}}}": "0 0 1 2x10"},
    ),
    "AswhomRequestsFail": Alert(
        after=12,
        bad={
            'aswhom_http_requests_total{route="/v1/jobs",status="503"}': "0+6x20",
            'aswhom_http_requests_total{route="/v1/jobs",status="202"}': "0+54x20",
            'aswhom_http_requests_total{route="/metrics",status="200"}': "0+6000x20",
            'aswhom_http_requests_total{route="none",status="404"}': "0+6000x20",
            'aswhom_http_requests_total{route="/v1/jobs",status="401"}': "0+6000x20",
        },
        says="10% of requests are answered with 5xx",
        good={
            'aswhom_http_requests_total{route="/v1/jobs",status="503"}': "0+1x20",
            'aswhom_http_requests_total{route="/v1/jobs",status="202"}': "0+99x20",
            'aswhom_http_requests_total{route="/readyz",status="503"}': "0+99x20",
            f'aswhom_http_requests_total{{{EVENTS},status="503"}}': "0+99x20",
        },
    ),
    "AswhomDeliveriesFail": Alert(
        after=31,
        bad={
            f'aswhom_http_requests_total{{{ROUTE},status="503"}}': "0x10 1x10 2x20",
            f'aswhom_http_requests_total{{{ROUTE},status="202"}}': "0x5 1x10 2x30",
            f'aswhom_http_requests_total{{{ROUTE},status="401"}}': "0+6000x40",
            'aswhom_http_requests_total{route="/v1/jobs",status="200"}': "0+6000x40",
        },
        says="50% of deliveries are answered with 5xx",
        good={
            f'aswhom_http_requests_total{{{ROUTE},status="202"}}': "0+1x40",
            f'aswhom_http_requests_total{{{ROUTE},status="503"}}': "0+1x5 5x30",
            f'aswhom_http_requests_total{{{EVENTS},status="503"}}': "0+6000x40",
            'aswhom_http_requests_total{route="/v1/jobs",status="503"}': "0+6000x40",
        },
    ),
    "AswhomSecurityEventsFail": Alert(
        after=31,
        bad={
            f'aswhom_http_requests_total{{{EVENTS},status="503"}}': "0x10 1x10 2x20",
            f'aswhom_http_requests_total{{{EVENTS},status="202"}}': "0x5 1x10 2x30",
            f'aswhom_http_requests_total{{{EVENTS},status="404"}}': "0+6000x40",
            f'aswhom_http_requests_total{{{ROUTE},status="202"}}': "0+6000x40",
        },
        says="50% of Security Event Tokens are answered with 5xx",
        good={
            f'aswhom_http_requests_total{{{EVENTS},status="503"}}': "5x10 6x30",
            f'aswhom_http_requests_total{{{ROUTE},status="503"}}': "0+6000x40",
        },
    ),
    "AswhomRequestsSlow": Alert(
        after=16,
        bad={
            f'aswhom_http_request_seconds_bucket{{{ROUTE},le="1"}}': "0x20",
            f'aswhom_http_request_seconds_bucket{{{ROUTE},le="2.5"}}': "0+60x20",
            f'aswhom_http_request_seconds_bucket{{{ROUTE},le="+Inf"}}': "0+60x20",
        },
        says="1 of 100 deliveries takes longer than 2.485s; Slack waits 3 s",
        good={
            f'aswhom_http_request_seconds_bucket{{{ROUTE},le="1"}}': "0+60x20",
            f'aswhom_http_request_seconds_bucket{{{ROUTE},le="+Inf"}}': "0+60x20",
        },
    ),
    "AswhomSignaturesRefused": Alert(
        after=30,
        bad={
            'aswhom_webhooks_total{source="github",outcome="signature-refused"}': "0+1x40",
            'aswhom_webhooks_total{source="github",outcome="accepted"}': "0+49x40",
        },
        labels={"source": "github"},
        says="2% of github deliveries are refused for their signature",
        good={
            'aswhom_webhooks_total{source="github",outcome="signature-refused"}': "0+1x40",
            'aswhom_webhooks_total{source="github",outcome="accepted"}': "0+199x40",
            'aswhom_webhooks_total{source="slack",outcome="signature-refused"}': "0 1 2x40",
        },
    ),
    "AswhomDeliveriesUnrecognised": Alert(
        after=5,
        bad={'aswhom_webhooks_total{source="slack",outcome="unrecognised"}': "0 0 1x5"},
        labels={"source": "slack"},
        says="signed deliveries of slack are not of the published shape",
        good={'aswhom_webhooks_total{source="slack",outcome="ignored"}': "0 0 1x5"},
    ),
    "AswhomDeliveriesMisread": Alert(
        after=5,
        bad={'aswhom_deliveries_misread_total{workflow="triage"}': "0 0 1x5"},
        labels={"workflow": "triage"},
        says="triage cannot read deliveries that it should start jobs for",
        good={'aswhom_deliveries_misread_total{workflow="triage"}': "1x5"},
    ),
    "AswhomDeliveriesWithheld": Alert(
        after=5,
        bad={'aswhom_webhooks_withheld_total{source="slack"}': "0 0 1x5"},
        labels={"source": "slack"},
        says="slack left out events, which never come",
        good={'aswhom_webhooks_withheld_total{source="slack"}': "1x5"},
    ),
    "AswhomDeliveriesDropped": Alert(
        after=5,
        bad={'aswhom_webhooks_total{source="slack",outcome="dropped"}': "0 0 1x5"},
        labels={"source": "slack"},
        says="deliveries of slack that no tenant's installation sent are taken and not kept",
        good={'aswhom_webhooks_total{source="slack",outcome="ignored"}': "0 0 1x5"},
    ),
    "AswhomDeliveriesLimited": Alert(
        after=5,
        bad={'aswhom_webhooks_total{source="github",outcome="too-many-requests"}': "0 0 1x5"},
        labels={"source": "github"},
        says="deliveries of github are over a tenant's or a connection's rate and were turned away",
        good={'aswhom_webhooks_total{source="github",outcome="dropped"}': "0 0 1x5"},
    ),
    "AswhomDeliveriesMalformed": Alert(
        after=5,
        bad={'aswhom_webhooks_total{source="linear",outcome="malformed"}': "0 0 1x5"},
        labels={"source": "linear"},
        says="signed deliveries of linear cannot be read and were turned away",
        good={'aswhom_webhooks_total{source="linear",outcome="incomplete"}': "0 0 1x5"},
    ),
    "AswhomSecurityEventsRefused": Alert(
        after=5,
        bad={
            'aswhom_security_events_total{outcome="unverified",transmitter="a"}': "_ _ 1x5",
            'aswhom_security_events_total{outcome="unsigned",transmitter="a"}': "0+9x8",
            'aswhom_security_events_total{outcome="unknown-transmitter",transmitter=""}': "0+99x8",
            'aswhom_security_events_total{outcome="signal",transmitter="b"}': "0+9x8",
        },
        labels={"outcome": "unverified", "transmitter": "a"},
        says="Security Event Tokens of a are refused for good: unverified",
        good={
            'aswhom_security_events_total{outcome="unavailable",transmitter="a"}': "0 0 1x5",
            'aswhom_security_events_total{outcome="unsigned",transmitter="a"}': "0+9x8",
            'aswhom_security_events_total{outcome="unverified",transmitter="a"}': "0+9x8",
            'aswhom_security_events_total{outcome="ignored",transmitter="a"}': "_ _ 1x5",
        },
    ),
    "AswhomSecurityEventsMeanNobody": Alert(
        after=5,
        bad={'aswhom_security_events_total{outcome="nobody",transmitter="a"}': "_ _ 1x5"},
        labels={"transmitter": "a"},
        says="Security Event Tokens of a revoke somebody whom they name in no way that is known here",
        good={'aswhom_security_events_total{outcome="ignored",transmitter="a"}': "0 0 1x5"},
    ),
    "AswhomRevocationsMeanNobody": Alert(
        after=5,
        bad={'aswhom_webhooks_total{source="slack",outcome="nobody"}': "0 0 1x5"},
        labels={"source": "slack"},
        says="slack revokes what was granted in a place that is listed for no tenant",
        good={
            'aswhom_webhooks_total{source="slack",outcome="signal"}': "0 0 1x5",
            'aswhom_webhooks_total{source="slack",outcome="stranger"}': "0+1x8",
            'aswhom_webhooks_total{source="slack",outcome="nobody"}': "1x5",
        },
    ),
    "AswhomDeliveriesLost": Alert(
        after=5,
        bad={'aswhom_redeliveries_total{outcome="lost"}': "0 0 1x5"},
        says="GitHub no longer has deliveries that failed while we were away",
        good={'aswhom_redeliveries_total{outcome="asked"}': "0 0 1x5"},
    ),
    "AswhomWorkWaits": Alert(
        after=6,
        bad={'aswhom_oldest_due_seconds{pattern="service"}': "300x10"},
        labels={"pattern": "service"},
        says="service jobs have been due for 5m 0s",
        good={'aswhom_oldest_due_seconds{pattern="service"}': "60x10"},
    ),
    "AswhomDeadLetters": Alert(
        after=5,
        bad={'aswhom_dead_letters_total{pattern="hybrid"}': "0 0 1x5"},
        labels={"pattern": "hybrid"},
        says="hybrid jobs died",
        good={'aswhom_dead_letters_total{pattern="hybrid"}': "1x5"},
    ),
    "AswhomJobsDie": Alert(
        after=5,
        bad={
            'aswhom_dead_letters_total{pattern="hybrid"}': "0+6x10",
            'aswhom_jobs_finished_total{pattern="hybrid",outcome="dead"}': "0+6x10",
            'aswhom_jobs_finished_total{pattern="hybrid",outcome="done"}': "0+6x10",
        },
        labels={"pattern": "hybrid"},
        says="50% of hybrid jobs that end are dead",
        good={
            'aswhom_dead_letters_total{pattern="hybrid"}': "0+6x10",
            'aswhom_jobs_finished_total{pattern="hybrid",outcome="dead"}': "0+6x10",
            'aswhom_jobs_finished_total{pattern="hybrid",outcome="done"}': "0+60x10",
            'aswhom_dead_letters_total{pattern="service"}': "0 2 4 6x10",
            'aswhom_jobs_finished_total{pattern="service",outcome="dead"}': "0 2 4 6x10",
        },
    ),
    "AswhomRunsMisconfigured": Alert(
        after=18,
        bad={'aswhom_misconfigured_runs_total{pattern="hybrid"}': "0+1x20"},
        labels={"pattern": "hybrid"},
        says="hybrid jobs meet a mistake of configuration and are tried again in vain",
        good={'aswhom_misconfigured_runs_total{pattern="hybrid"}': "0 5 10 12x20"},
    ),
    "AswhomUnknownOutcomes": Alert(
        after=11,
        bad={"aswhom_calls_unanswered": "2x20"},
        says="2 calls wait for an operator to say what became of them",
        good={"aswhom_calls_unanswered": "0x20", "aswhom_attempts_unknown": "5x20"},
    ),
    "AswhomDuplicateEffect": Alert(
        after=5,
        bad={"aswhom_duplicate_effects_total": "0 0 1x5"},
        says="a call may have been made twice",
        good={"aswhom_duplicate_effects_total": "0x5"},
    ),
    "AswhomBeatSilent": Alert(
        after=5,
        bad={'aswhom_beat_silent_seconds{process="housekeeping"}': "90x5"},
        says="no beat has ticked for 1m 30s",
        good={'aswhom_beat_silent_seconds{process="housekeeping"}': "5x5"},
    ),
    "AswhomScheduleLate": Alert(
        after=6,
        bad={"aswhom_schedule_late_seconds": "180x10"},
        says="a schedule has been due for 3m 0s",
        good={"aswhom_schedule_late_seconds": "60x10"},
    ),
    "AswhomSchedulesFaulty": Alert(
        after=6,
        bad={"aswhom_schedules_faulty": "2x10"},
        says="2 schedules cannot be kept",
        good={"aswhom_schedules_faulty": "0x10"},
    ),
    "AswhomRedisAway": Alert(
        after=15,
        bad={f"aswhom_redis_failures_total{{{A}}}": "0+6x20"},
        labels={"instance": "a:1"},
        says="a:1 does without the shared Redis: it keeps rate limits and paces by itself",
        good={f"aswhom_redis_failures_total{{{A}}}": "0 6 12 12x20"},
    ),
    "AswhomUpstreamAway": Alert(
        after=25,
        bad={'aswhom_upstream_waits_total{provider="linear",why="away"}': "0+1x30"},
        labels={"provider": "linear"},
        says="linear is away or hangs; steps wait for it for a day at most",
        good={
            'aswhom_upstream_waits_total{provider="linear",why="away"}': "5x30",
            'aswhom_upstream_waits_total{provider="linear",why="burst"}': "0+1x30",
        },
    ),
    "AswhomHeld": Alert(
        after=5,
        bad={'aswhom_held{process="housekeeping"}': "0 1x5"},
        says="the installation is held: nothing goes out until somebody releases it",
        good={'aswhom_held{process="housekeeping"}': "1 0x5"},
    ),
    "AswhomHeldLong": Alert(
        after=250,
        bad={'aswhom_held{process="housekeeping"}': "1x250"},
        says="the installation has been held for more than four hours",
        good={'aswhom_held{process="housekeeping"}': "1x100 0x5 1x145"},
    ),
    "AswhomClientRefused": Alert(
        after=5,
        bad={'aswhom_connections_paused{provider="slack"}': "0 1x5"},
        labels={"provider": "slack"},
        says="slack refuses our client: connections to it are paused (1)",
        good={'aswhom_connections_paused{provider="slack"}': "1 0x5"},
    ),
    "AswhomAssertionRefused": Alert(
        after=5,
        bad={'aswhom_refreshes_total{provider="google",outcome="assertion_refused"}': "0 0 1x5"},
        labels={"provider": "google"},
        says="google does not accept what our key signs for an account",
        good={'aswhom_refreshes_total{provider="google",outcome="transient"}': "0 0 1x5"},
    ),
    "AswhomAccountRefused": Alert(
        after=5,
        bad={'aswhom_refreshes_total{provider="google",outcome="account_refused"}': "0 0 1x5"},
        labels={"provider": "google"},
        says="google gives some account no token until somebody acts",
        good={'aswhom_refreshes_total{provider="google",outcome="transient"}': "0 0 1x5"},
    ),
    "AswhomGrantsLost": Alert(
        after=61,
        bad={
            'aswhom_refreshes_total{provider="github",outcome="dead"}': "0x70",
            'aswhom_refreshes_total{provider="github",outcome="unknown"}': "0x70",
            'aswhom_refreshes_total{provider="github",outcome="needs_person"}': "0+1x70",
        },
        labels={"provider": "github"},
        says="60 grants of github were lost in an hour",
        good={'aswhom_refreshes_total{provider="github",outcome="dead"}': "0 1 2x70"},
    ),
    "AswhomRefreshesFail": Alert(
        after=40,
        bad={
            'aswhom_refreshes_total{provider="linear",outcome="transient"}': "0+60x50",
            'aswhom_refreshes_total{provider="linear",outcome="success"}': "0+20x50",
        },
        labels={"provider": "linear"},
        says="75% of refreshes at linear come to nothing",
        good={
            'aswhom_refreshes_total{provider="linear",outcome="transient"}': "0+20x50",
            'aswhom_refreshes_total{provider="linear",outcome="success"}': "0+60x50",
        },
    ),
    "AswhomTokenErrorUnrecognised": Alert(
        after=5,
        bad={'aswhom_token_errors_unrecognised_total{provider="oidc"}': "0 0 1x5"},
        labels={"provider": "oidc"},
        says="oidc refuses with an error code that nobody here knows",
        good={'aswhom_token_errors_unrecognised_total{provider="oidc"}': "0x5"},
    ),
    "AswhomKeepaliveLate": Alert(
        after=16,
        bad={"aswhom_keepalive_lag_seconds": "7200x20"},
        says="grants have been due for a look for 2h 0m 0s",
        good={"aswhom_keepalive_lag_seconds": "600x20"},
    ),
    "AswhomTokenLineLong": Alert(
        after=6,
        bad={'aswhom_token_line_seconds{provider="github"}': "5400x20"},
        labels={"provider": "github"},
        says="whoever needs a token of github now waits 1h 30m 0s for it",
        good={'aswhom_token_line_seconds{provider="github"}': "600x20"},
    ),
    "AswhomRevocationSlow": Alert(
        after=10,
        bad={
            'aswhom_revocation_effective_seconds_bucket{le="1"}': "0x20",
            'aswhom_revocation_effective_seconds_bucket{le="2.5"}': "0+60x20",
            'aswhom_revocation_effective_seconds_bucket{le="+Inf"}': "0+60x20",
        },
        says="revocations take 2.485s to become effective",
        good={
            'aswhom_revocation_effective_seconds_bucket{le="0.05"}': "0+60x20",
            'aswhom_revocation_effective_seconds_bucket{le="+Inf"}': "0+60x20",
        },
    ),
    "AswhomSignalUnreached": Alert(
        after=6,
        bad={"aswhom_signal_unreached_seconds": "300x10"},
        says="a signal came 5m 0s ago, and agents still act for people whom it revokes",
        good={"aswhom_signal_unreached_seconds": "60 120 180 0x10"},
    ),
    "AswhomRevocationInFlight": Alert(
        after=10,
        bad={
            'aswhom_revocation_seconds_bucket{le="120"}': "0x20",
            'aswhom_revocation_seconds_bucket{le="300"}': "0+60x20",
            'aswhom_revocation_seconds_bucket{le="+Inf"}': "0+60x20",
        },
        says="calls of a revoked credential stay in flight for 4m 42s",
        good={
            'aswhom_revocation_seconds_bucket{le="1"}': "0+60x20",
            'aswhom_revocation_seconds_bucket{le="+Inf"}': "0+60x20",
        },
    ),
    "AswhomRevocationUnfinished": Alert(
        after=5,
        bad={"aswhom_revocation_unfinished_seconds": "900x5"},
        says="a revocation has had no receipt for 15m 0s",
        good={"aswhom_revocation_unfinished_seconds": "300x5"},
    ),
    "AswhomWithdrawalsStuck": Alert(
        after=6,
        bad={'aswhom_withdrawals{state="stuck"}': "1x10"},
        says="1 revoked credentials may still be valid at their provider",
        good={'aswhom_withdrawals{state="pending"}': "1x10"},
    ),
    "AswhomStreamSilent": Alert(
        after=6,
        bad={'aswhom_streams_silent{status="disabled"}': "1x10"},
        labels={"status": "disabled"},
        says="1 streams of security events are disabled",
        good={'aswhom_streams_silent{status="disabled"}': "0x10"},
    ),
    "AswhomAuditUnsealed": Alert(
        after=5,
        bad={"aswhom_audit_unsealed_seconds": "90x5"},
        says="audit records have been unsealed for 1m 30s",
        good={"aswhom_audit_unsealed_seconds": "2x5"},
    ),
}
