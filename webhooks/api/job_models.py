"""Models of tools and jobs, as the API's document describes them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, Field, RootModel

from identity.model import AccessPattern
from pipeline.states import JobState, StepState, Wait
from webhooks.api.models import Given, Id, Next, Paged, Principal, Query, Sent, Word

LONGEST_WAIT = 20  # seconds


class ToolPath(BaseModel):
    tool: Id = Field(description="`github.CreateIssue`, or as models write it: `github__CreateIssue`")


class Form(StrEnum):
    """Formats of a catalogue."""

    PLAIN = "plain"
    OPENAI = "openai"
    OPENAI_RESPONSES = "openai-responses"
    ANTHROPIC = "anthropic"
    MCP = "mcp"


class ToolQuery(Query):
    format: Form = Field(
        Form.PLAIN,
        description="`plain`, or a model API's format: `openai` for Chat Completions, `openai-responses` for Responses",
    )


class CatalogueQuery(ToolQuery):
    identifier: Id | None = Field(
        None, description="return only tools usable as this `identifier` of `execute`; policy is not considered"
    )
    provider: Word | None = Field(None, description="return only this provider's tools")


class ExecuteBody(Sent):
    """Execute a tool."""

    identifier: Id = Field(
        description="the principal to act as: a user (delegated), or the tenant or a workspace (service). "
        "A prefix `user:`, `tenant:` or `workspace:` says which is meant"
    )
    parameters: dict[str, Any] = Field({}, description="as defined by the tool's schema")
    wait: float = Field(5, ge=0, le=LONGEST_WAIT, description="seconds to wait for the job to end; 0: respond at once")


class ToolOut(Given):
    """A tool, with JSON Schemas of its parameters and its result."""

    name: str
    description: str
    provider: str
    scopes: list[str]
    effect: Literal["read", "write", "high_risk"]
    attribution: bool = Field(description="whether it must be attributable to a person")
    parameters: dict[str, Any]
    result: dict[str, Any]


class OneTool(RootModel[ToolOut | dict[str, Any]]):
    """A tool; in any format other than `plain`, as that format defines it."""


class Catalogue(Given):
    tools: list[OneTool]


class StepOut(Given):
    position: int
    action: str
    as_whom: Principal | None = Field(description="null: no principal was permitted")
    pattern: AccessPattern | None
    why: str = Field(validation_alias="reason", description="reason for the choice of principal, or for the refusal")
    state: StepState
    attempts: int
    external_id: str | None = Field(description="the upstream's id of what was created")
    result: dict[str, Any] | None = Field(description="null in a tool's job, where the job's own `result` holds it")
    error: str | None = Field(description="why it failed, or what is known of an unanswered call")


class ConsentOut(Given):
    """The consent that a job waits for: `user` and `connection` are parameters of `POST /v1/connect-links`."""

    account: str = Field(description="TENANT/CONNECTION/PRINCIPAL")
    connection: str
    user: str | None = Field(
        description="null: it is the service's account, which an operator connects; `aswhom accounts show` says how"
    )
    missing_scopes: list[str] = Field(
        description="for an account that is already connected; a connect link requests them"
    )


class JobOut(Given):
    id: str
    workflow: str
    agent: str = Field(validation_alias="agent_id")
    pattern: AccessPattern
    state: JobState
    wait: Wait | None = Field(description="why it waits")
    consent: ConsentOut | None = Field(description="the consent that it waits for, if any")
    next_try_at: datetime | None = Field(
        description="earliest time of the next try, for a job that sleeps or was delayed by an upstream or its rate "
        "limit; null: at once, or unknown"
    )
    reason: str | None
    user: str | None = Field(validation_alias="user_id", description="the user it acts for")
    triggered_by: str | None
    delivery: str | None = Field(validation_alias="delivery_id")
    revocation: str | None = Field(
        validation_alias="revocation_id", description="the revocation that cancelled or is stopping it"
    )
    created_at: datetime
    finished_at: datetime | None


class Outcome(StrEnum):
    """The known outcome of a tool's job.

    The job continues while it is
    - `pending`: queued (perhaps for a later try), running (perhaps until it stops), or waiting for time or another job;
    - `needs_consent`: a person must connect an account; then it continues by itself;
    - `waiting`: for an operator, or for somebody's approval.

    The job has ended once it is
    - `done`;
    - `failed`: the upstream refused it, and nothing was done;
    - `refused`: policy or scope forbids it, and nothing was done;
    - `cancelled`: by a revocation, a stop or an operator;
    - `dead`: it cannot be carried out for another reason;
    - `unknown`: it ended as `cancelled` or `dead`, but may have been done: a call was sent, and its result is not
      known. Executing it again under a new key may do it twice: look at the provider first. A tool that only reads is
      never `unknown`.

    A late answer from the upstream, or an operator's word, still counts: the outcome is then no longer `unknown`, and
    if it was done after all, a `result` stands beside `cancelled` or `dead`.
    """

    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    DEAD = "dead"
    UNKNOWN = "unknown"
    NEEDS_CONSENT = "needs_consent"
    WAITING = "waiting"
    PENDING = "pending"


class JobWithSteps(JobOut):
    outcome: Outcome | None = Field(description="for a tool's job; null: the job belongs to another workflow")
    result: dict[str, Any] | None = Field(description="of a tool that was done; null once its steps are pruned")
    steps: list[StepOut]


class ToolAnswer(Given):
    """The outcome of a tool: `result` if it was done, otherwise `reason`. With 202, look at the job again."""

    outcome: Outcome
    result: dict[str, Any] | None = Field(
        description="set if the tool was done, even if its job was cancelled meanwhile"
    )
    reason: str | None = Field(description="why there is no result, or none yet; the same as the job's")
    job: JobWithSteps = Field(description="as in `GET /v1/jobs/ID`, except that `result` is only beside it")


class JobPage(Given):
    items: list[JobOut]
    next: Next


class JobQuery(Query):
    wait: float = Field(
        0, ge=0, le=LONGEST_WAIT, description="seconds to wait until the job has ended or waits for a person"
    )


class JobsQuery(Paged):
    state: JobState | None = None
    workflow: Word | None = None
    tool: Word | None = Field(
        None, description="jobs that execute this tool, such as `github.CreateIssue`, as any principal"
    )
    wait: Wait | None = Field(
        None,
        description="why the job waits. `unknown`: jobs with an unanswered call that only a person can resolve, "
        "whether they wait for that or ended without it",
    )
    user: Id | None = Field(None, description="the user it acts for, by name or id, as in `identifier`")
    pattern: AccessPattern | None = None
