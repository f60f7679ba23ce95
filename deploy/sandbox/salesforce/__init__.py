"""A pretend Salesforce."""
