"""What the vault sealed, across all tables: rewrapping it, and the proof that the keys are the ledger's."""
