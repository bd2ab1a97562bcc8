#!/usr/bin/env bash
# Make every image of the production tests where none can be pulled; what exists is kept.
#   tests/docker/images.sh servers      those that need none of our packages to be installed
#   DOCKER=/usr/bin/docker              a client that can build, where the first in PATH cannot
set -euo pipefail
cd "$(dirname "$0")/../.."
docker=${DOCKER:-docker}
export BASE_IMAGE=spira-base:local

# The public image under our name, where a registry answers.
pulled() { timeout 300 "$docker" pull --quiet "$1" >/dev/null 2>&1 && "$docker" tag "$1" "$2"; }
here() { "$docker" image inspect "$1" >/dev/null 2>&1; }

here "$BASE_IMAGE" || pulled python:3.11-slim-bookworm "$BASE_IMAGE" || tests/docker/base_image.sh "$BASE_IMAGE"

declare -A public=([postgres]=postgres:16-bookworm [redis]=redis:7-bookworm [proxy]=caddy:2-alpine [nats]=nats:2.15.1-alpine [s3]= [monitoring]=)
for name in "${!public[@]}"; do
  here "spira-$name:local" && continue
  if [ -n "${public[$name]}" ] && pulled "${public[$name]}" "spira-$name:local"; then continue; fi
  echo "building spira-$name:local"
  DOCKER_BUILDKIT=1 "$docker" build --quiet --build-arg BASE_IMAGE="$BASE_IMAGE" \
    -f "tests/docker/$name.Dockerfile" -t "spira-$name:local" . >/dev/null
done
[ "${1:-}" != servers ] || exit 0

# The build of torch that this machine has; its CPU build is not in every index, so it goes along.
SPIRA_DEVICE=$(.venv/bin/python -c 'import torch; print("cuda" if torch.version.cuda else "cpu")')
export SPIRA_DEVICE
if [ "$SPIRA_DEVICE" = cpu ]; then
  export WHEELS_IMAGE=spira-wheels:local
  if ! here "$WHEELS_IMAGE"; then
    wheels=$(mktemp -d); trap 'rm -rf "$wheels"' EXIT
    torch=$(.venv/bin/python -c 'import torch; print(torch.__version__)')
    .venv/bin/python -m pip download --quiet --no-deps --dest "$wheels" "torch==$torch"
    tar -C "$wheels" -c . | "$docker" import - "$WHEELS_IMAGE" >/dev/null
  fi
fi

scripts/images.sh
