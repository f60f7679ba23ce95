"""The authority over HTTP: keys, metadata, token exchange and introspection."""
