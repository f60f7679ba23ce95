"""Token refresh: the coordinator, the intents that keep it to one presentation, and keep-alive."""
