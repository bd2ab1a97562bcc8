"""What crosses the boundary between Airflow and a stage: names, digests and plain JSON.

Standard library only.  Of ``spira_tasks`` ``dags/`` and ``plugins/`` import this package, and what
reads a bucket ``s3_client``: a DAG file parses without torch, pydantic or Great Expectations.
"""
