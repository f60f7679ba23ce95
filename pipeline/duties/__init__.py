"""Housekeeping: its duties, how often each runs, and what each does."""
