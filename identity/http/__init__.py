"""The guarded HTTP client: addresses, deadlines and kept connections."""
