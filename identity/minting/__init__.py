"""Access tokens minted on demand, for whole installations and for one repository."""
