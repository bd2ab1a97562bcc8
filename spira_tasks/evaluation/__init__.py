"""Statistics of evaluations and of tables: arrays and tables in, numbers out."""
