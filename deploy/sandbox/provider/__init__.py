"""A provider process that misbehaves in thirty ways seen in real ones, each a numbered case."""
