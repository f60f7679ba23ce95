"""The movement of work: the ledger of jobs and steps, the workflow API, Celery, revocation and housekeeping.

docs/explanation/how-a-step-works.md ends with the files that a step passes, in order.
"""
