"""The agents' API without HTTP."""
