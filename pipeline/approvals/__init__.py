"""Approvals: what people are asked before a step, what they are shown, and their answers."""
