"""Policy beside the work: the question each step asks, names checked, a change tried out and put into force."""
