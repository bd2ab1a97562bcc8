"""The parts of an experiment as stages, for Airflow."""
