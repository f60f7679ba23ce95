"""Ending at providers what was revoked here."""
