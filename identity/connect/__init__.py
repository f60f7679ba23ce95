"""Connecting an account in the browser: the flow, its sessions and links, the callback, and its outcomes."""
