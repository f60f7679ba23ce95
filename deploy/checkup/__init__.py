"""The checks of `aswhom doctor`, one file for each part of an installation."""
