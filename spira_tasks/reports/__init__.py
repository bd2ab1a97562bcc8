"""The governance site: pages about runs, free of values, for people who read no code."""
