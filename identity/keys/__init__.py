"""The installation's own keys: the vault that seals secrets, and the key that signs receipts."""
