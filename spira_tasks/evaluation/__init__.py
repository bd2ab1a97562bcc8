"""What the numbers of an evaluation, or of a table, say: arrays and tables in, statistics out."""
