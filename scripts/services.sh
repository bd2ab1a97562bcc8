#!/usr/bin/env bash
# The command line of the services on the platform in containers, in the container of the server; `route` in
# that of a worker, which may read the registry of models.
#
#   scripts/services.sh sites add hc --name "Hospital das Clínicas" --check-letter
#   scripts/services.sh people add ana --role clinician --password-file - <password
#   scripts/services.sh --help
set -euo pipefail
me=$(id -un 2>/dev/null || id -u)
terminal=()
[ -t 0 ] && [ -t 1 ] || terminal=(-T)
service=collection
[ "${1:-}" != route ] || service=worker
exec "$(dirname "$0")/compose.sh" exec "${terminal[@]}" -e "SPIRA_ACTOR=cli:$me" \
  "$service" python /opt/spira/docker/serve_services.py "$@"
