"""The authorization server: consent, codes, rotation with reuse detection, revocation, introspection."""
