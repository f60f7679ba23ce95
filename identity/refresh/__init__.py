"""How an account gets its next token: the coordinator, what keeps it to one presentation, and keep-alive."""
