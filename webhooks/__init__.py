"""The web side of Aswhom: signed deliveries, the connect flow and the HTTP API."""
