"""Policy: as whom an action runs, what a tenant's file says of it, and which version of it holds."""
