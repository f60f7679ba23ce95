"""Refused steps that a workflow goes on past, to fail only at its end."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType

from pipeline.run import ActionFailed, StepRefused, UpstreamGone


class Postponed(AbstractContextManager[None]):
    """Keeps the first refusal raised in its blocks, so that one refused step keeps no other from being done.

    An upstream that is gone ends the run at once: each further step there would wait for it as long again. Its error
    then tells of the refusal too.

    Steps that depend on one that may be refused belong into a `run.part()`, so that a replay can do them.
    """

    def __init__(self) -> None:
        self._first: BaseException | None = None

    def __exit__(
        self, kind: type[BaseException] | None, refusal: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(refusal, UpstreamGone):
            if self._first in (None, refusal.__cause__):  # nothing to tell, or told by a block within this one
                return False
            raise UpstreamGone(f"{refusal}; refused before that: {self._first}") from self._first
        if not isinstance(refusal, ActionFailed | StepRefused):
            return False
        self._first = self._first or refusal
        return True

    def raise_first(self) -> None:
        """Raise the first refusal, if there was one: the job is then dead, and its replay tries what was refused."""
        if self._first is not None:
            raise self._first
