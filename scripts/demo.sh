#!/usr/bin/env bash
# `make demo`: a synthetic cohort, one run of the DAG on it, what came out, and a person's approval.
# SPIRA_DEMO_SUBJECTS and SPIRA_DEMO_EPOCHS make it smaller or larger.
set -euo pipefail
cd "$(dirname "$0")/.."
. ./env.sh
subjects=${SPIRA_DEMO_SUBJECTS:-400} epochs=${SPIRA_DEMO_EPOCHS:-30}
cohort=.spira/demo-cohort-$subjects log=.spira/demo.log
mkdir -p .spira

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1. A synthetic cohort of $subjects people, with some files cut short"
if [ -e "$cohort/cohort.json" ]; then  # written last
  echo "it is already there: $cohort"
else
  python -m spira_tasks cohort "$cohort" --subjects "$subjects" --seed 1 --fault truncated
fi

say "2. The Airflow DAG spira_continuous_training (its whole log: $log)"
migrated=$AIRFLOW_HOME/migrated-$(cksum <requirements.txt | cut -d' ' -f1)
if [ ! -e "$migrated" ]; then
  echo "preparing Airflow's database"
  mkdir -p "$AIRFLOW_HOME"
  airflow db migrate >"$log" 2>&1 || { tail -n 20 "$log"; exit 1; }
  touch "$migrated"
fi
status=0
airflow dags test spira_continuous_training -c "{\"data\": \"$PWD/$cohort\", \"epochs\": $epochs}" \
  --dagfile-path "$PWD/dags/spira_continuous_training.py" 2>&1 |
  tee "$log" | sed -unE 's/^[^ ]+ \[[a-z]+ +\] (.*[^ ]) +\[spira\.step\] loc=.*$/  \1/p' || status=$?

say "3. What came out"
python -m spira_tasks show latest --reports .spira/reports
# Its outcome, the version where nothing but a person's approval is missing, and whether it serves.
read -r run_id outcome version serves <<<"$(python -c '
import json, pathlib
newest = max(pathlib.Path(".spira/reports").glob("*/run.json"), key=lambda file: file.stat().st_mtime)
run = json.loads(newest.read_text())
model = run["model"] or {"version": "-", "aliases": []}
checks = [check for step in run["steps"] if step["name"] == "promote" for check in step["verdicts"]]
missing = {check["name"] for check in checks if check["verdict"] == "warn"}
waits = missing & {"approved_by_a_person", "better_than_champion"} == {"approved_by_a_person"}
print(run["run_id"], run["outcome"], model["version"] if waits else "-", "champion" in model["aliases"])')"
if [ "$status" -ne 0 ] && [ "$outcome" = blocked ] && grep -qF "$run_id" "$log"; then
  say "A gate refused: that is an outcome, not an accident. Its reason is above."
  status=0
fi

number=4
if [ "$version" != - ]; then
  say "$((number++)). The model is provisional, so a person decides. In your place the demo types:"
  why="demo: synthetic people, no patient"
  echo "  python -m spira_tasks model approve $version --why \"$why\""
  echo "  python -m spira_tasks quarantine rerun latest"
  python -m spira_tasks model approve "$version" --why "$why"
  python -m spira_tasks quarantine rerun latest 2>>"$log"
fi

if [ "$serves" = True ] || python -m spira_tasks model list --json | grep champion >/dev/null; then
  recording=$(find "$cohort" -name '*-sentence.wav' | sort | sed -n 1p)
  say "$number. The model in use is asked about a recording, as from a ward"
  echo "  python -m spira_services work &"
  echo "  python -m spira_services ask ${recording#"$PWD/"}"
  python -m spira_services work 2>>"$log" >&2 & worker=$!
  trap 'kill $worker 2>/dev/null || true' EXIT
  python -m spira_services ask "$recording" 2>>"$log" || [ $? -eq 65 ] || { tail -n 5 "$log"; exit 1; }
  kill $worker; wait $worker
fi
cat <<NEXT

Next:
  make demo                                     finds what is computed
  . ./env.sh                                    enters the environment
  python -m spira_tasks show latest --json      the same for a program
  python -m spira_tasks pipeline training --data $cohort --set train.seed=7
NEXT
exit "$status"
