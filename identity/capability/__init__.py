"""Capabilities: permission for one action on one resource, for one step of one job, spent once."""
