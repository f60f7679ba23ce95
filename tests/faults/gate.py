"""A gate at which a worker stands until the test lets it go on: how long either takes does not matter."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

# So often it looks: seconds would go on passing for a worker that is stopped.
_LOOKS, _PAUSE = 6000, 0.02


@dataclass(frozen=True)
class Gate:
    """Two files: one lets the worker go on, and one beside it says that it has come."""

    file: Path

    def reached(self) -> bool:
        return self._sign.exists()

    def open(self) -> None:
        self.file.touch()

    def stand(self) -> None:
        """In the worker. Raises TimeoutError if nobody opens it."""
        self._sign.touch()
        for _ in range(_LOOKS):
            if self.file.exists():
                return
            time.sleep(_PAUSE)
        raise TimeoutError(f"nobody opened {self.file}")

    @property
    def _sign(self) -> Path:
        return self.file.with_name(f"{self.file.name}.reached")
