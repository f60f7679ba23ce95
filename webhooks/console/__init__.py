"""The console: what operators see and do in a browser, on the functions that the command line has."""
