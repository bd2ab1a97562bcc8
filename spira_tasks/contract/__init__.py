"""What crosses the boundary between Airflow and a stage: names, digests and plain JSON.

Standard library only.  Of ``spira_tasks`` ``dags/`` and ``plugins/`` import this package, and pages
that read a bucket ``s3_client``, so a DAG file parses without torch, pydantic or Great Expectations.
"""
