"""Deliveries: their tenant, their acceptance with the jobs they start, and their replay."""
