"""A provider of its own process that misbehaves as thirty real ones did, each as a numbered case."""
