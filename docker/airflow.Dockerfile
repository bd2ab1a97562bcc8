# The image of Airflow's parts: our DAGs and operators, and no torch.
# scripts/images.sh builds it; docs/production.md says how to by hand.

ARG BASE_IMAGE=python:3.11-slim-bookworm
# An image with wheels in its root, for builds without a package index; by default an empty one.
ARG WHEELS_IMAGE=scratch

FROM ${WHEELS_IMAGE} AS wheels

FROM ${BASE_IMAGE}
ARG PIP_NO_INDEX=
RUN --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=bind,source=docker/airflow.txt,target=/locks/airflow.txt \
    python -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
      --quiet --find-links=/wheels -r /locks/airflow.txt \
 && echo 'airflow:x:10001:0::/tmp:/usr/sbin/nologin' >>/etc/passwd \
 && mkdir -p /opt/airflow/logs && chown -R 10001:0 /opt/airflow

# Of spira_tasks only what DAGs and plugins may import: standard library, and the S3 client.
COPY spira_tasks/__init__.py spira_tasks/s3_client.py /opt/spira/spira_tasks/
COPY spira_tasks/contract /opt/spira/spira_tasks/contract
# The words for what gates say, and the limits that a person signs, without the gates.
COPY expectations/__init__.py expectations/personal.py expectations/policy.yaml \
     expectations/pccp.yaml /opt/spira/expectations/
COPY expectations/words /opt/spira/expectations/words
COPY dags /opt/spira/dags
COPY plugins /opt/spira/plugins
COPY docker/health.py /opt/spira/docker/
# An empty configuration: without one Airflow writes its own, with secrets in it.
COPY docker/airflow.cfg docker/webserver_config.py /opt/airflow/
RUN python -m compileall -q /opt/spira

ARG VERSION=0
ARG REVISION=
LABEL org.opencontainers.image.title="SPIRA Airflow" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PYTHONPATH=/opt/spira \
    SPIRA_COMMAND=scripts/spira.sh \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/spira/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/spira/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False \
    DO_NOT_TRACK=1
WORKDIR /opt/airflow
USER 10001:0
CMD ["airflow", "version"]
