"""Request and response models, except those of tools and jobs, as the API's document describes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from identity.model import AccountState
from pipeline.ledger.paging import Place, Turn
from webhooks import problems
from webhooks.cursors import asked, place_in_time
from webhooks.problems import Problem

# No control characters: a database refuses some of them.
Id = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
# The recorded outcomes of deliveries; duplicates are not recorded.
Recorded = Literal["accepted", "ignored", "unrecognised", "refused", "signal"]
# A filter without an index scans a limited number of rows per page, so a page may be short or empty.
Next = Annotated[
    str | None,
    Field(
        description="`cursor` of the following page, even if this page is short or empty; null: this is the last page"
    ),
]
# The same limits however the key arrives: it must fit the ledger and an HTTP header.
IdempotencyKey = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]*$")]
Word = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.:-]+$")]


class Sent(BaseModel):
    """A request body: members that are not described are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Given(BaseModel):
    """A response. A field whose ledger column has another name maps it by `validation_alias`."""


class ProblemDocument(Given):
    """A problem document (RFC 9457): what went wrong, why, and what to do next."""

    type: str = Field(description="`urn:aswhom:problem:…`, or about:blank where the status says it all")
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = Field(None, description="which part of the request is wrong, and how")


class Nothing(Sent):
    """An object without members."""


class OnePath(BaseModel):
    id: Id


class IdempotencyHeader(BaseModel):
    idempotency_key: IdempotencyKey | None = Field(
        None,
        alias="Idempotency-Key",
        description="the same key with the same path and body is one request, however often it is sent",
    )


class Query(BaseModel):
    """Query parameters; unknown ones are refused, since a misspelt filter must not let everything through."""

    model_config = ConfigDict(extra="forbid")


class Paged(Query):
    limit: int = Field(50, ge=1, le=200)
    cursor: str | None = Field(
        None, max_length=500, pattern=r"^[A-Za-z0-9_-]*$", description="`next` of the previous page"
    )

    def turn(self, read: Callable[[str], Place] = place_in_time) -> Turn:
        """Return the requested page. Raises Problem for an invalid cursor."""
        try:
            return asked(self.limit, self.cursor, read)
        except ValueError:
            detail = "This cursor is none of ours. Send `next` of the page before, or none for the first page."
            raise Problem(problems.UNUSABLE, detail) from None


class Principal(Given):
    """The principal that a call acts as."""

    kind: Literal["user", "service"]
    name: str


class AccountOut(Given):
    id: str
    provider: str
    connection: str = Field(validation_alias="connection_id")
    principal: Principal
    state: AccountState
    usable: bool = Field(description="whether a step could use it now")
    why: str | None = Field(description="why it is not usable")
    login: str | None = Field(
        validation_alias="external_login", description="the provider's name for the person who consented"
    )
    scopes: list[str]
    missing_scopes: list[str] = Field(description="scopes that waiting jobs and switched-on workflows lack")
    token_expires_at: datetime | None = Field(validation_alias="expires_at")
    created_at: datetime


class AccountPage(Given):
    items: list[AccountOut]
    next: Next


class AccountsQuery(Paged):
    state: AccountState | None = None
    provider: Word | None = None
    principal: Id | None = Field(None, description="its id or name")
    usable: bool | None = Field(None, description="only accounts that a step could use now, or only the rest")


class ConnectBody(Sent):
    """Create the link by which a person connects an account."""

    user: Id = Field(description="the user's name or principal id; created if new")
    connection: Id = Field(description="a provider, or the id of a provider connection")
    scopes: list[Id] | None = Field(
        None,
        min_length=1,
        max_length=50,
        description="scopes to request; if omitted: the connection's, and those that waiting jobs lack",
    )
    return_to: str | None = Field(
        None, max_length=2000, pattern=r"^[^\x00]*$", description="a registered return target"
    )
    confirm: bool = Field(
        False,
        description="require `confirm_connect_link` before the consent takes effect; needs a `return_to` and a "
        "`nonce`. A provider connection may require this of every link",
    )
    nonce: str | None = Field(
        None,
        min_length=22,
        max_length=200,
        pattern=r"^[\x21-\x7e]*$",
        description="random, and kept in your session of the requesting browser; confirmation must repeat it",
    )


class ConnectLink(Given):
    id: str = Field(description="the id to confirm it by")
    url: str = Field(description="only for that person; works once")
    principal: str
    connection: str
    scopes: list[str]
    confirm: bool = Field(description="whether it must be confirmed")
    expires_at: datetime


class ConfirmBody(Sent):
    """Confirm who came back through a connect link."""

    user: Id = Field(
        description="the user signed in to your product in the browser that came back; never taken from its address"
    )
    code: Word = Field(description="`aswhom_code` from the address it came back to")
    nonce: str = Field(
        max_length=200,
        pattern=r"^[\x21-\x7e]*$",
        description="the nonce in your session of that browser; empty if there is none",
    )


class ConsenterOut(Given):
    principal: str
    connection: str
    login: str | None = Field(description="the provider's name for the person who consented")
    scopes: list[str] = Field(description="scopes that were granted")
    until: datetime = Field(description="deadline for confirming it")


class ConnectedOut(Given):
    account: str
    principal: str
    connection: str
    login: str | None = Field(description="the provider's name for the person who consented")
    missing_scopes: list[str] = Field(description="requested but not granted")


class DeliveryOut(Given):
    id: str
    source: str
    connection: str = Field(validation_alias="connection_id")
    event: str
    sender_id: str = Field(validation_alias="delivery_id")
    outcome: Recorded
    reason: str | None
    received_at: datetime


class DeliveryWithJobs(DeliveryOut):
    jobs: list[str]


class DeliveryPage(Given):
    items: list[DeliveryOut]
    next: Next


class DeliveriesQuery(Paged):
    outcome: Recorded | None = None


class RevokeBody(Sent):
    """Withdraw authority; or, with `keeps`, narrow an account's scopes."""

    kind: Literal["tenant", "connection", "agent", "user", "account"]
    key: Id = Field(description="its id; for a user, also their name; for an account, also TENANT/CONNECTION/PRINCIPAL")
    reason: str = Field(
        min_length=1, max_length=500, pattern=r"^[^\x00]+$", description="for the receipt and the audit"
    )
    keeps: list[Id] | None = Field(
        None,
        max_length=100,
        description="for an account: narrow it to these of its scopes instead of withdrawing it; a step that needs "
        "another scope waits for consent",
    )


class ScopeOut(Given):
    kind: str
    key: str


class NarrowingOut(Given):
    had: list[str]
    keeps: list[str]
    took: list[str]


class RevocationOut(Given):
    id: str
    number: int = Field(description="ledger number; what was accepted or consented before it is withdrawn")
    scope: ScopeOut = Field(description="of kind `narrowing` if an account lost scopes and nothing is withdrawn")
    narrowing: NarrowingOut | None = Field(description="the account's scopes; null if the whole scope is withdrawn")
    state: Literal["effective", "cancelling", "draining", "quiesced"]
    requested_by: str
    reason: str
    effective_at: datetime
    quiesced_at: datetime | None
    cancelled_jobs: int
    stopped_jobs: int


class RevocationWithReceipt(RevocationOut):
    receipt: dict[str, Any] | None = Field(description="set once it is quiesced")
    signature: str | None = Field(description="over the receipt; `aswhom keys public` prints the key")


class RevocationPage(Given):
    items: list[RevocationOut]
    next: Next
