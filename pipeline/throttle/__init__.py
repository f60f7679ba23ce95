"""Protection of upstreams: rate budgets, circuit breakers and limits on calls in flight."""
