"""Policy: decides as whom an action runs, from facts and the current version of a tenant's policy file."""
