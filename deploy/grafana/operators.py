"""The operators' dashboard: incoming requests, work done and waiting, and the health of the machinery."""

from __future__ import annotations

from deploy.grafana.dashboard import Dashboard, Panel
from deploy.grafana.queries import gauge, quantile, rate, rate_or_none

_NOW = (
    Panel(
        title="Processes that do not answer",
        says="Runbook: AswhomProcessDown.",
        queries={"down": "count(up{job='aswhom'} == 0) or vector(0)"},
        kind="stat",
        width=4,
    ),
    Panel(
        title="Oldest due job",
        says="How long work has been waiting for a worker. Runbook: AswhomWorkWaits.",
        queries={"oldest": gauge("oldest_due_seconds")},
        unit="s",
        kind="stat",
        width=4,
    ),
    Panel(
        title="Dead jobs",
        says="Until somebody replays them. `aswhom jobs failures` groups them by cause.",
        queries={"dead": "sum(" + gauge("jobs_dead", "pattern") + ")"},
        kind="stat",
        width=4,
    ),
    Panel(
        title="Calls of unknown outcome",
        says="Sent, and no answer came. Most are resolved by a search or a repetition; the rest ask an operator.",
        queries={"unknown": gauge("attempts_unknown")},
        kind="stat",
        width=4,
    ),
    Panel(
        title="Duties that are stuck",
        says="Runbook: AswhomDutyStuck.",
        queries={"stuck": "sum(" + gauge("duty_stuck", "duty") + ")"},
        kind="stat",
        width=4,
    ),
    Panel(
        title="Unsealed audit",
        says="How long the oldest audit record has been waiting for its seal. Seconds are usual.",
        queries={"unsealed": gauge("audit_unsealed_seconds")},
        unit="s",
        kind="stat",
        width=4,
    ),
)

_IN = (
    Panel(
        title="Requests",
        says="By route.",
        queries={"{{route}}": rate("http_requests", "route")},
        unit="reqps",
    ),
    Panel(
        title="Requests that failed",
        says="Answered with 5xx: the ledger was away, or a fault of ours.",
        queries={"{{route}} {{status}}": rate_or_none("http_requests", "route", "status", where='status=~"5.."')},
        unit="reqps",
    ),
    Panel(
        title="How long requests take",
        says="95 of 100 are faster. Slack waits 3 s, GitHub 10 s.",
        queries={"{{route}}": quantile(0.95, "http_request_seconds", "route")},
        unit="s",
    ),
    Panel(
        title="Webhooks",
        says="What became of deliveries. `signature-refused`: a stranger, or a secret was changed on one side.",
        queries={"{{source}} {{outcome}}": rate("webhooks", "source", "outcome")},
        unit="reqps",
    ),
    Panel(
        title="Deliveries that failed at GitHub",
        says="Asked for again after we were away; lost when GitHub kept them no longer.",
        queries={"{{outcome}}": rate("redeliveries", "outcome")},
        unit="reqps",
    ),
    Panel(
        title="Doorbells",
        says="Messages to the broker. `failed`: it is away, and work waits for the dispatcher.",
        queries={"{{outcome}}": rate("bells", "outcome")},
        unit="reqps",
    ),
    Panel(
        title="Doorbells rung again",
        says="Of jobs that nobody claimed though they were rung for: the broker lost them, or workers are deaf.",
        queries={"rung again": rate("bells_rung_again")},
        unit="reqps",
    ),
)

_WORK = (
    Panel(
        title="Due jobs",
        says="By access pattern, which names the queue.",
        queries={"{{pattern}}": gauge("queue_depth", "pattern")},
    ),
    Panel(
        title="How long the oldest due job waits",
        says="More workers help if they are busy; see Claims.",
        queries={"{{pattern}}": gauge("oldest_due_seconds", "pattern")},
        unit="s",
    ),
    Panel(
        title="Jobs that wait",
        says="`consent`: for a person to connect an account. `unknown`: for an operator. `time`: for their moment.",
        queries={"{{wait}}": gauge("jobs_waiting", "wait")},
    ),
    Panel(
        title="Jobs that ended",
        says="By pattern and outcome.",
        queries={"{{pattern}} {{outcome}}": rate("jobs_finished", "pattern", "outcome")},
        unit="ops",
    ),
    Panel(
        title="Steps",
        says="By action, pattern and outcome.",
        queries={"{{action}} {{pattern}} {{outcome}}": rate("steps", "action", "pattern", "outcome")},
        unit="ops",
    ),
    Panel(
        title="How long a step takes",
        says="From its opening to its close; 95 of 100 are faster.",
        queries={"{{action}}": quantile(0.95, "step_seconds", "action")},
        unit="s",
    ),
    Panel(
        title="Tries",
        says="HTTP tries of steps. Many `no_effect`: an upstream refuses or limits.",
        queries={"{{action}} {{outcome}}": rate("attempts", "action", "outcome")},
        unit="ops",
    ),
    Panel(
        title="Claims",
        says="What workers found when a bell rang. `nothing_due` is harmless: somebody else was first.",
        queries={"{{pattern}} {{outcome}}": rate("claims", "pattern", "outcome")},
        unit="ops",
    ),
    Panel(
        title="Waits for a claim, 95th percentile",
        says="From when a job was due until a worker claimed it: threads are busy, or bells lost.",
        queries={"{{pattern}}": quantile(0.95, "claim_wait_seconds", "pattern")},
        unit="s",
    ),
    Panel(
        title="Duplicate effects",
        says="Calls of which their answer, or a late search, told an effect after it was ruled out: they may have been "
        "made twice. Runbook: AswhomDuplicateEffect.",
        queries={"duplicates": rate("duplicate_effects")},
        unit="ops",
    ),
)

_LEFT = "aswhom_budget_left"
_UPSTREAMS = (
    Panel(
        title="Answers that left less than 5 % of a budget",
        says="Their share among all answers. Near 1: an account's rate limit is nearly spent, and jobs will wait.",
        queries={
            "{{provider}} {{endpoints}}": f"(sum by (provider, endpoints) (rate({_LEFT}_bucket{{le='0.05'}}"
            f"[$__rate_interval])) / sum by (provider, endpoints) (rate({_LEFT}_count[$__rate_interval]))) or vector(0)"
        },
        unit="percentunit",
    ),
    Panel(
        title="Requests that draw on a budget",
        says="`waits`: the job comes back when the window ends. `unwatched`: the Redis is away.",
        queries={
            "{{provider}} {{endpoints}} {{outcome}}": rate_or_none(
                "budget_requests", "provider", "endpoints", "outcome"
            )
        },
        unit="reqps",
    ),
    Panel(
        title="Pauses that upstreams asked for",
        says="429 and secondary limits.",
        queries={"{{provider}} {{endpoints}}": rate_or_none("budget_pauses", "provider", "endpoints")},
        unit="ops",
    ),
    Panel(
        title="Steps sent back by an upstream that is away",
        says="`away`: a breaker is open. `hangs`, `burst`: it has its share of a worker's threads, and was silent for "
        "two seconds, or not yet. Runbook: AswhomUpstreamAway.",
        queries={"{{provider}} {{why}}": rate_or_none("upstream_waits", "provider", "why")},
        unit="ops",
    ),
)

_FAILED = "aswhom_duty_seconds_count{outcome='failed'}"
_MACHINE = (
    Panel(
        title="Duties that fail",
        says="Ticks of housekeeping that ended in an error. `aswhom doctor` has the error.",
        queries={"{{duty}}": f"sum by (duty) (rate({_FAILED}[$__rate_interval])) or vector(0)"},
        unit="ops",
    ),
    Panel(
        title="How long duties take",
        says="95 of 100 ticks are faster.",
        queries={"{{duty}}": quantile(0.95, "duty_seconds", "duty")},
        unit="s",
    ),
    Panel(
        title="Schedules",
        says="Since a beat ticked; how late the most overdue schedule is.",
        queries={"beat silent": gauge("beat_silent_seconds"), "late": gauge("schedule_late_seconds")},
        unit="s",
    ),
    Panel(
        title="Restarts",
        says="Of each process, in the last hour.",
        queries={"{{process}} {{instance}}": "changes(process_start_time_seconds{job='aswhom'}[1h])"},
    ),
    Panel(
        title="Memory",
        says="Resident.",
        queries={"{{process}} {{instance}}": "process_resident_memory_bytes{job='aswhom'}"},
        unit="bytes",
    ),
    Panel(
        title="Processor",
        says="1 is one core.",
        queries={"{{process}} {{instance}}": "rate(process_cpu_seconds_total{job='aswhom'}[$__rate_interval])"},
    ),
)

OPERATORS = Dashboard(
    uid="aswhom-operators",
    title="Aswhom: operators",
    says="What comes in, what is done, what waits, and whether the machinery runs.",
    rows={
        "Now": _NOW,
        "Coming in": _IN,
        "Work": _WORK,
        "Upstreams": _UPSTREAMS,
        "Machinery": _MACHINE,
    },
)
