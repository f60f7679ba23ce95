"""Processes that simulate GitHub, Linear, Slack and others, and their authorization server.

The package imports nothing of ours except the capability verifier, so it cannot agree with the product by accident.
"""
