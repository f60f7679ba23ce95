"""Protecting upstreams: rate budgets, circuit breakers and shares of calls in flight."""
