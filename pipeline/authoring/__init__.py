"""Implementation of `@workflow`: declarations checked at import, the registry, and matching of deliveries."""
