"""From what a suite says of a table to verdicts, a quarantine, and the rows that are handed on."""
