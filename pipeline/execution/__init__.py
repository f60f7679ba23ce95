"""Execution of a job: the worker, the steps of a run, and the attempts of a step."""
