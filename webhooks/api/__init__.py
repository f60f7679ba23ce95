"""The agents' API below /v1; its OpenAPI document is generated from the code and served at /v1/openapi.json."""
