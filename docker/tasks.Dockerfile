# The image of the steps, of the services and of the MLflow server: what they import, and no Airflow.
# scripts/images.sh builds it with the right arguments; docs/production.md says how to by hand.

ARG BASE_IMAGE=python:3.11-slim-bookworm
# An image with wheels in its root, for builds without a package index; by default an empty one.
ARG WHEELS_IMAGE=scratch

FROM ${WHEELS_IMAGE} AS wheels

FROM ${BASE_IMAGE}
# cpu or cuda.  The default index serves the CUDA build of torch; the CPU build comes from the wheels
# above, or from PyTorch's own index, which TORCH_INDEX_URL names.
ARG DEVICE=cpu
ARG TORCH_INDEX_URL=
ARG PIP_NO_INDEX=
RUN --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=bind,source=docker/tasks.txt,target=/locks/tasks.txt \
    --mount=type=bind,source=docker/torch_build.py,target=/locks/torch_build.py \
    python -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
      --quiet --find-links=/wheels ${TORCH_INDEX_URL:+--extra-index-url=${TORCH_INDEX_URL}} \
      -r /locks/tasks.txt \
 && python /locks/torch_build.py ${DEVICE}

COPY spira_tasks /opt/spira/spira_tasks
COPY expectations /opt/spira/expectations
COPY spira_services /opt/spira/spira_services
COPY docs/governance /opt/spira/docs/governance
COPY docker/tasks.txt docker/serve_mlflow.py docker/serve_services.py \
  docker/bootstrap.py docker/command_line.py /opt/spira/docker/
RUN python -m compileall -q /opt/spira && install -d -o 10001 -g 10001 /var/spira

ARG VERSION=0
ARG REVISION=
ARG LOCK=
LABEL org.opencontainers.image.title="SPIRA tasks" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      spira.lock="${LOCK}" \
      spira.device="${DEVICE}"
ENV PYTHONPATH=/opt/spira \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SPIRA_REVISION=${REVISION} \
    SPIRA_COMMAND=scripts/spira.sh \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    OMP_WAIT_POLICY=PASSIVE \
    MLFLOW_DISABLE_TELEMETRY=true \
    GX_ANALYTICS_ENABLED=false \
    DO_NOT_TRACK=1
WORKDIR /tmp
USER 10001:10001
CMD ["python", "-m", "spira_tasks", "--help"]
