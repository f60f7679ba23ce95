"""The authority to act: accounts, grants, leases, the refresh coordinator, policy and the audit."""
