"""Connected accounts and their grants: consents, leases, narrowing and what is inferred of them."""
