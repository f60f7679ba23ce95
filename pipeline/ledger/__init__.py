"""The ledger: deliveries, jobs, steps and bells, as functions that run inside the caller's transaction."""
