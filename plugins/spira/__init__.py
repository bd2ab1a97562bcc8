"""How a step becomes a task of Airflow, and the governance site in Airflow's web interface.

Of our other packages this one imports ``spira_tasks.contract``, ``spira_tasks.s3_client`` and the
words of checks only; ``lint-imports`` checks it (ADR 18).
"""
