"""What every table and statement shares: column types, compiled statements, the sequence and its locks."""
