#!/usr/bin/env bash
# Compose as this machine has it: `docker compose` where that works, else docker-compose 1.29.
#
#   scripts/compose.sh up -d
#   SPIRA_ENV_FILE=/etc/spira/env scripts/compose.sh ps      another file than ./.env
#   DOCKER=/usr/bin/docker                                   another client
set -euo pipefail
env_file=${SPIRA_ENV_FILE:+$(realpath -- "$SPIRA_ENV_FILE")}
cd "$(dirname "$0")/.." # where docker-compose.yaml and .env are
docker=${DOCKER:-docker}
if "$docker" compose version >/dev/null 2>&1; then
  compose=("$docker" compose)
elif command -v docker-compose >/dev/null; then
  compose=(docker-compose)
else
  echo "there is neither 'docker compose' nor docker-compose: install docker-compose-plugin" >&2
  exit 127
fi
exec "${compose[@]}" ${env_file:+--env-file "$env_file"} "$@"
