"""Revocations as they are declared, stored and proven; `pipeline.revoker` carries them out."""
