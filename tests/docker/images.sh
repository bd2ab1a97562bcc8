#!/usr/bin/env bash
# Make every image of the production tests where none can be pulled; what exists is kept.
#   DOCKER=/usr/bin/docker    a client that can build, where the first in PATH cannot
set -euo pipefail
cd "$(dirname "$0")/../.."
docker=${DOCKER:-docker}
export BASE_IMAGE=spira-base:local WHEELS_IMAGE=spira-wheels:local SPIRA_DEVICE=cpu
tests/docker/base_image.sh "$BASE_IMAGE"

if ! docker image inspect "$WHEELS_IMAGE" >/dev/null 2>&1; then  # the CPU build of torch
  wheels=$(mktemp -d); trap 'rm -rf "$wheels"' EXIT
  .venv/bin/python -m pip download --quiet --no-deps --dest "$wheels" "$(grep -E '^torch==' docker/tasks.txt)"
  tar -C "$wheels" -c . | docker import - "$WHEELS_IMAGE" >/dev/null
fi
for name in postgres s3; do
  echo "building spira-$name:local"
  DOCKER_BUILDKIT=1 "$docker" build --quiet --build-arg BASE_IMAGE="$BASE_IMAGE" \
    -f "tests/docker/$name.Dockerfile" -t "spira-$name:local" . >/dev/null
done
scripts/images.sh
