"""How it runs: the `aswhom` command, settings, entry points and the sandbox upstreams."""
