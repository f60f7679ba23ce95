"""A test environment for your own workflows: a ledger and a worker in this process, and the sandbox."""

from deploy.trial.job import TrialJob
from deploy.trial.trial import Trial

__all__ = ["Trial", "TrialJob"]
