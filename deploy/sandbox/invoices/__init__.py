"""A service that pays invoices only against capability tokens."""
