"""The guarded HTTP client: addresses, deadlines and pooled connections."""
