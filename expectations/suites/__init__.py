"""One module a suite: a function that makes the suite for a table, and what it needs."""
