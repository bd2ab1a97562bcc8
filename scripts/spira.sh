#!/usr/bin/env bash
# The command line on the platform in containers, with its keys: what production leaves and decides.
#
#   scripts/spira.sh quarantine list
#   scripts/spira.sh report latest --zip pack.zip      files come to, and from, the folder ./reports
#   scripts/spira.sh data put /srv/delivery-7          a folder of this machine, which is only read
#   scripts/spira.sh --help
set -euo pipefail
reports=${SPIRA_REPORTS:-$(dirname "$0")/../reports}
mkdir -p "$reports"
reports=$(realpath "$reports")
me=$(id -un 2>/dev/null || id -u)
terminal=()
[ -t 0 ] && [ -t 1 ] || terminal=(-T)
folder=()
if [ "${1:-} ${2:-}" = "data put" ] && [ -d "${3:-}" ]; then
  folder=(--volume "$(realpath -- "$3"):/delivery:ro")
  set -- data put /delivery "${@:4}"
fi
SPIRA_REPORTS="$reports" exec "$(dirname "$0")/compose.sh" --profile cli \
  run --rm --no-deps "${terminal[@]}" "${folder[@]}" --user "$(id -u):$(id -g)" -e "SPIRA_ACTOR=cli:$me" cli "$@"
