"""Slack's Web API and Events API, as far as the workflows use them."""
