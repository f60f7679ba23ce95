"""Connected accounts and their grants: consents, leases, narrowing and inferred states."""
