"""Real servers for the tests, each started privately and ended by its own process id."""
