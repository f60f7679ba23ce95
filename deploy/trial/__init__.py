"""A place to try workflows in, for tests of one's own: a ledger and a worker in this process, and the sandbox."""

from deploy.trial.trial import Trial

__all__ = ["Trial"]
