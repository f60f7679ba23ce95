"""Approvals: what is asked of people before a step, what they are shown, and their answer."""
