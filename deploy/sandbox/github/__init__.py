"""GitHub's REST API and webhooks, as far as the workflows use them."""
