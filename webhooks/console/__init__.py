"""The operators' console in a browser, built on the same functions as the command line."""
