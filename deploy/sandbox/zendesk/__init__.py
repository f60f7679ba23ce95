"""A pretend Zendesk."""
