"""Running Aswhom: the `aswhom` command, settings, process entry points and the sandbox providers."""
