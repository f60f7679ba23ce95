"""Typed actions, one file per upstream."""
