#!/usr/bin/env bash
# The command line of collection and labels on the platform in containers, in the container of the server.
#
#   scripts/services.sh sites add hc --name "Hospital das Clínicas" --check-letter
#   scripts/services.sh people add ana --role clinician --password-file - <password
#   scripts/services.sh --help
set -euo pipefail
me=$(id -un 2>/dev/null || id -u)
terminal=()
[ -t 0 ] && [ -t 1 ] || terminal=(-T)
exec "$(dirname "$0")/compose.sh" exec "${terminal[@]}" -e "SPIRA_ACTOR=cli:$me" \
  collection python /opt/spira/docker/serve_services.py "$@"
