#!/usr/bin/env bash
# Start or stop the whole platform on this machine, by docker-compose.yaml.
#
#   scripts/production.sh up       settings, images and secrets as far as they are missing; then start
#   scripts/production.sh down     stop; data, secrets and images stay
set -euo pipefail
cd "$(dirname "$0")/.."
docker=${DOCKER:-docker}

setting() { [ ! -e .env ] || sed -n "s/^$1=//p" .env | tail -n 1; }

case ${1:-} in
up)
  "$docker" info >/dev/null 2>&1 || { echo "no Docker engine answers: start it, then run this again (make doctor tells more)"; exit 1; }
  if [ ! -e .env ]; then
    group=$(stat -c %g /var/run/docker.sock 2>/dev/null || echo 999)
    sed "s/^DOCKER_GID=.*/DOCKER_GID=$group/" .env.example >.env
    echo "made .env from .env.example; the group of the Docker socket is $group"
  fi
  for image in "$(setting SPIRA_TASKS_IMAGE)" "$(setting SPIRA_AIRFLOW_IMAGE)"; do
    "$docker" image inspect "$image" >/dev/null 2>&1 || missing=yes
  done
  if [ -n "${missing:-}" ]; then
    SPIRA_DEVICE=${SPIRA_DEVICE:-$(setting SPIRA_DEVICE)} \
      SPIRA_TORCH_INDEX_URL=${SPIRA_TORCH_INDEX_URL:-$(setting SPIRA_TORCH_INDEX_URL)} scripts/images.sh
  fi
  echo "starting; the first time this takes a minute or two"
  scripts/compose.sh up -d --no-build
  cat <<TEXT

Airflow   $(setting SPIRA_AIRFLOW_PAGE)   user admin, password in secrets/airflow_admin/password
MLflow    $(setting SPIRA_MLFLOW_PAGE)   user admin, password in secrets/mlflow/admin_password
make doctor            shows what is wrong, and what to do
make production-down   stops it; nothing is lost
TEXT
  ;;
down)
  following=(airflow-scheduler)  # first of all, or a step that stops is tried again
  case ",$(setting COMPOSE_PROFILES)," in *,celery,*) following+=(airflow-worker) ;; esac
  scripts/compose.sh stop "${following[@]}"
  network=$(setting SPIRA_NETWORK)
  services=$(setting SPIRA_SERVICES_NETWORK)
  steps=$("$docker" ps -q --filter label=spira.step --filter "network=${network:-spira_steps}" \
    --filter "network=${services:-spira_services}")
  if [ -n "$steps" ]; then
    echo "asking $(wc -w <<<"$steps") running steps to save their state and stop"
    "$docker" stop --time 60 $steps >/dev/null
  fi
  scripts/compose.sh down
  ;;
*) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
