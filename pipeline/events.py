"""Triggers, which start workflows, and the typed events that they read from deliveries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict


class Event(BaseModel):
    """The input of a workflow, describing what happened. Frozen, and the same on every run."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)  # JSON has no NaN or infinity


class ExternalUser(BaseModel):
    """A person as a provider names them; only a principal alias maps them to a user here."""

    model_config = ConfigDict(frozen=True)

    provider: str
    id: str
    login: str

    @property
    def name_for_good(self) -> str:
        """Return a permanent name such as `github:1001`; a login can be renamed and taken by somebody else."""
        return f"{self.provider}:{self.id}"


E = TypeVar("E", bound=Event)


@dataclass(frozen=True, kw_only=True)
class Trigger(Generic[E]):
    """Selects the deliveries that start a workflow.

    `read` returns the typed event, or None if the delivery is not meant for the workflow. It raises pydantic's
    ValidationError for a body that does not have the sender's published shape.
    """

    source: str
    event: str
    read: Callable[[Mapping[str, Any]], E | None]
    usage: str = ""  # the text a person types to start it, where people do


class Tick(Event):
    """The event of a scheduled job."""

    slot: str  # ISO time of the slot
    schedule: str = ""  # its name; a tenant may have several for one workflow
