"""What starts a workflow and what it is told: triggers, and the typed events that they read from deliveries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict


class Event(BaseModel):
    """What a workflow is told about what happened: frozen, and the same on every run."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)  # JSON has none


class ExternalUser(BaseModel):
    """A person as a provider names them; who they are here is only ever an alias's say-so."""

    model_config = ConfigDict(frozen=True)

    provider: str
    id: str
    login: str

    @property
    def name_for_good(self) -> str:
        """`github:1001`: a login can be renamed, and taken by another."""
        return f"{self.provider}:{self.id}"


E = TypeVar("E", bound=Event)


@dataclass(frozen=True, kw_only=True)
class Trigger(Generic[E]):
    """Which deliveries start a workflow: `read` gives the typed event, or None when it is not meant.

    `read` raises pydantic's ValidationError for a body that is not of the sender's published shape.
    """

    source: str
    event: str
    read: Callable[[Mapping[str, Any]], E | None]
    usage: str = ""  # what a person types to be meant, where people do


class Tick(Event):
    """The event of a scheduled job."""

    slot: str  # ISO time of the slot
    schedule: str = ""  # its name: a tenant may have several of one workflow
