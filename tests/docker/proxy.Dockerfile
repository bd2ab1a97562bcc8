# Stands in for the caddy image where none can be pulled.
ARG BASE_IMAGE=spira-base:local
FROM ${BASE_IMAGE}
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      caddy libcap2-bin wget >/dev/null \
 # as in the public image: without that capability in reach the program does not start at all
 && setcap cap_net_bind_service=+ep /usr/bin/caddy \
 && rm -rf /var/lib/apt/lists/*
USER 10001:10001
