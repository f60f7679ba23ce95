"""How agents authenticate: API keys, workload identity, and the identifiers that say as whom."""
