"""The pictures that documents show of the console, in the order in which the walk over the whole system takes them."""

PICTURES = ("console-overview", "console-job", "console-revocation")
