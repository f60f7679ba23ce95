"""Agents' work: workflows (one file each), typed events and typed actions (one file per upstream)."""
