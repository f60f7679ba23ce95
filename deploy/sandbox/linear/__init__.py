"""Linear's GraphQL API, as far as the workflows use it."""
