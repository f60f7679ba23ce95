"""How the world comes in: signed deliveries, the connect flow and the HTTP API."""
