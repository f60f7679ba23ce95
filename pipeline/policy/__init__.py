"""Policy in the pipeline: questions of steps, checks of names, trials, and putting a policy into force."""
