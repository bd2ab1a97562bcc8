#!/usr/bin/env bash
# Build the two images, tagged with the version and with the git revision, and print their sizes.
#
#   scripts/images.sh                     both, from python:3.11-slim-bookworm and the package index
#   SPIRA_DEVICE=cpu SPIRA_TORCH_INDEX_URL=... scripts/images.sh      torch without CUDA
#   BASE_IMAGE=... WHEELS_IMAGE=...       other places to take Python and wheels from
#   DOCKER=/usr/bin/docker                another client
set -euo pipefail
cd "$(dirname "$0")/.."
docker=${DOCKER:-docker}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
revision=$(git describe --always --abbrev=12 --dirty=-changed 2>/dev/null || echo unknown)
lock=$(sha256sum docker/tasks.txt | cut -d' ' -f1)

build() {  # NAME ARGUMENT...
  local name=$1; shift
  echo "building spira-$name:$version ($revision)"
  DOCKER_BUILDKIT=1 "$docker" build --quiet -f "docker/$name.Dockerfile" \
    ${BASE_IMAGE:+--build-arg "BASE_IMAGE=$BASE_IMAGE"} \
    ${WHEELS_IMAGE:+--build-arg "WHEELS_IMAGE=$WHEELS_IMAGE"} \
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision" "$@" \
    -t "spira-$name:$version" -t "spira-$name:$version-$revision" . >/dev/null
}
build airflow
build tasks --build-arg "DEVICE=${SPIRA_DEVICE:-cuda}" --build-arg "LOCK=$lock" \
  --build-arg "TORCH_INDEX_URL=${SPIRA_TORCH_INDEX_URL:-}"
"$docker" image ls --format '{{.Repository}}:{{.Tag}}  {{.Size}}' |
  grep -E "^spira-(tasks|airflow):$version " | sort
