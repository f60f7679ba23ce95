"""Jobs in the ledger: how they are accepted, claimed, parked, woken and ended."""
