"""Reads of the ledger for people and for gauges; nothing here writes."""
