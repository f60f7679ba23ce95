"""Where tests kill what carries a revocation out: every point that it says it has reached."""

REVOKER_POINTS = ("after_chunk", "before_compensations", "after_compensation", "before_withdrawals", "before_receipt")
