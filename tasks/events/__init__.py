"""Typed events and the triggers that read them, one file per sender."""
