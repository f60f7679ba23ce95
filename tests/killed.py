"""kill -9, as far as one process can do it to itself."""

from __future__ import annotations

from collections.abc import Callable


class Killed(BaseException):
    """The process dies at a crash point: nothing after it is carried out."""


def killed_at(point: str | None) -> Callable[[str], None]:
    """What is told of the crash points that are reached, and dies at *point*; at none where it is None."""

    def reached(at: str) -> None:
        if at == point:
            raise Killed(at)

    return reached
