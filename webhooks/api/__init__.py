"""The agents' API, below /v1: its document is made from the code, and served at /v1/openapi.json."""
