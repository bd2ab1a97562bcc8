"""Statistical gates: what the measurements of a model and of its data mean, by the policy."""
