"""How work moves: the ledger of jobs and steps, the workflow API, Celery, revocation and housekeeping."""
