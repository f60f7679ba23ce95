"""The demo: the DevOps assistant of two tenants against the sandbox, checked against the sandbox's own logs."""
