"""The ledger itself: its clock, its numbers, its revision, who is connected to it, and pages of its rows."""
