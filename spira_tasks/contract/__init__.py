"""What crosses the boundary between Airflow and a stage: names, digests and plain JSON.

Standard library only.  ``dags/`` and ``plugins/`` import this package and nothing else of
``spira_tasks``, so a DAG file parses without torch, pydantic or Great Expectations.
"""
