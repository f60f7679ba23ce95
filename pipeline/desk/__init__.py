"""The operator's desk: manual actions on the work. The command line and the console call the same functions."""
