"""Authentication of agents: API keys, workload identity, and the identifiers they act as."""
