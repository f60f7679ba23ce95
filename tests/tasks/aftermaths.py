"""What follows the effects of shipped workflows that a revocation stops in the middle: each in a job of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from identity.model import ScopeKind
from pipeline.revocation import declaration
from tests.ledger.revokers import quiet_revoker
from tests.tasks.in_process_system import InProcessSystem
from tests.tasks.scenes import SCENES, TENANT, Scene, Step


@dataclass(frozen=True, kw_only=True)
class Aftermath:
    """One compensation: *of* is stopped before its step *stopped_at*, counted from 0, and *step* follows another."""

    of: Scene
    stopped_at: int
    undone: str  # the action whose effect it follows
    step: Step

    @property
    def workflow(self) -> str:
        return f"{self.of.workflow}.compensation"

    def start(self, system: InProcessSystem) -> str:
        """Whom the next step would run as is revoked in the middle, and the compensation accepted; the revocation."""
        made: list[str] = []
        account = str(self.of.steps[self.stopped_at].account)
        system.when(
            "after_commit", self.stopped_at, lambda: made.append(system.revoke(ScopeKind.ACCOUNT, account, TENANT))
        )
        self.of.start(system)
        system.settle()
        assert told(system, *made) == ("pending", None)
        return made[0]

    def before(self, system: InProcessSystem) -> list[tuple[str, str, str]]:
        """Who wrote before it was stopped."""
        return [step.author(system) for step in self.of.steps[: self.stopped_at] if step.writes]


def told(system: InProcessSystem, made: str) -> tuple[str, str | None]:
    """What the newest receipt says of the one compensation: its outcome, and the reason. No provider is asked."""
    runtime = system.runtime
    assert quiet_revoker(runtime.database, runtime.signer, system.registry, ids=runtime.ids).advance(made)
    receipt: Any = runtime.database.read(partial(declaration.load, revocation=made)).receipt
    (one,) = receipt["compensations"]
    return one["outcome"], one["reason"]


_SAID = Step(action="linear.Notice", endpoint="commentCreate")

AFTERMATHS = tuple(
    # An issue was filed, and whoever it was filed for ends their consent at GitHub before the comment.
    Aftermath(of=scene, stopped_at=2, undone="linear.CreateIssue", step=_SAID)
    for scene in SCENES
    if scene.name in ("link_pull_request", "link_on_command")
)
