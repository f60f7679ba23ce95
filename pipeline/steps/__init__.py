"""Steps in the ledger: the transactions that open and close an attempt, and those that refuse or settle a step."""
