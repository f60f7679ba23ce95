"""Behind `@workflow`: declarations checked at import, the registry, and what each delivery matches."""
