"""Carrying out revocations: what follows from `pipeline.revocation`, in chunks, until the receipt."""
