"""A service that pays invoices by capability tokens alone."""
