#!/usr/bin/env bash
# Print a .env that uses the images of tests/docker/images.sh:  tests/docker/local_env.sh >.env
set -euo pipefail
cd "$(dirname "$0")/../.."
group=$(stat -c %g /var/run/docker.sock)
sed -E \
  -e 's|^(SPIRA_POSTGRES_IMAGE)=.*|\1=spira-postgres:local|' \
  -e 's|^(SPIRA_REDIS_IMAGE)=.*|\1=spira-redis:local|' \
  -e 's|^(SPIRA_PROXY_IMAGE)=.*|\1=spira-proxy:local|' \
  -e 's/^(SPIRA_(PROMETHEUS|ALERTMANAGER)_IMAGE)=.*/\1=spira-monitoring:local/' \
  -e 's|^(SPIRA_NATS_IMAGE)=.*|\1=spira-nats:local|' \
  -e 's|^(SPIRA_S3_IMAGE)=.*|\1=spira-s3:local|' \
  -e "s|^(DOCKER_GID)=.*|\1=$group|" \
  .env.example
