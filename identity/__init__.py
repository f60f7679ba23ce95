"""Who may act: accounts, grants, leases, the refresh coordinator, policy and the audit."""
