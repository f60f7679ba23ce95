"""A simulated Zendesk."""
