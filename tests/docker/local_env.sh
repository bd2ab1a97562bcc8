#!/usr/bin/env bash
# Print a .env that uses the images of tests/docker/images.sh:  tests/docker/local_env.sh >.env
set -euo pipefail
cd "$(dirname "$0")/../.."
group=$(stat -c %g /var/run/docker.sock)
sed -E \
  -e 's|^(SPIRA_POSTGRES_IMAGE)=.*|\1=spira-postgres:local|' \
  -e 's|^(SPIRA_REDIS_IMAGE)=.*|\1=spira-redis:local|' \
  -e 's|^(SPIRA_PROXY_IMAGE)=.*|\1=spira-proxy:local|' \
  -e 's|^(SPIRA_S3_IMAGE)=.*|\1=spira-s3:local|' \
  -e 's|^(SPIRA_S3_COMMAND)=.*|\1=python /usr/local/bin/s3_entry.py /run/secrets/identities.json|' \
  -e 's|^(SPIRA_S3_HEALTH)=.*|\1=test -e /tmp/ready|' \
  -e 's|^(SPIRA_S3_USER)=.*|\1=10001:10001|' \
  -e 's|^(SPIRA_S3_GRANTS)=.*|\1=policy|' \
  -e "s|^(DOCKER_GID)=.*|\1=$group|" \
  .env.example
