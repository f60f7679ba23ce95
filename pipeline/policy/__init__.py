"""Policy in the pipeline: the question each step asks, checks of names, trials of a change, putting it into force."""
