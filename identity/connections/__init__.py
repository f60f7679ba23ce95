"""Provider connections: client registrations with providers, their secrets and installations."""
