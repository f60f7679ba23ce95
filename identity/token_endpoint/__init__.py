"""Token endpoints: requests to them, and the rate limit, line and breaker in front of each."""
