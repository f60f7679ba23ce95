"""Access tokens that are minted on demand, for whole installations and for one repository."""
