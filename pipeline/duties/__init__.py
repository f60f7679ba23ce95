"""Housekeeping: its duties, and how often each runs."""
