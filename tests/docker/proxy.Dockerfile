# Stands in for the caddy image where none can be pulled.
ARG BASE_IMAGE=spira-base:local
FROM ${BASE_IMAGE}
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends caddy >/dev/null \
 && rm -rf /var/lib/apt/lists/*
USER 10001:10001
