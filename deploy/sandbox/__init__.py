"""Processes that stand for GitHub, Linear, Slack and their authorization server.

Imports none of the other packages, so that it cannot agree with them by accident.
"""
