# Enter the project's environment, in the project's folder:  . ./env.sh
# Airflow, MLflow and the store on SQLite and folders under .spira/, nothing outside this machine.
# Whatever is set already is kept.

SPIRA_ROOT="${BASH_SOURCE:-}"                         # bash says where this file is,
[ -z "${ZSH_VERSION:-}" ] || SPIRA_ROOT="$0"           # so does zsh;
[ -n "$SPIRA_ROOT" ] || SPIRA_ROOT=./env.sh            # other shells must stand beside it
SPIRA_ROOT="$(cd "$(dirname "$SPIRA_ROOT")" && pwd)"
export SPIRA_ROOT
export PATH="$SPIRA_ROOT/.venv/bin:$PATH"
export PYTHONPATH="$SPIRA_ROOT:$SPIRA_ROOT/plugins${PYTHONPATH:+:$PYTHONPATH}"

export SPIRA_RUNTIME="${SPIRA_RUNTIME:-process}"
export SPIRA_STORE="${SPIRA_STORE:-$SPIRA_ROOT/.spira/store}"
export SPIRA_DATA="${SPIRA_DATA:-$SPIRA_ROOT/.spira/cohort}"

export AIRFLOW_HOME="${AIRFLOW_HOME:-$SPIRA_ROOT/.spira/airflow}"
export AIRFLOW__CORE__DAGS_FOLDER="${AIRFLOW__CORE__DAGS_FOLDER:-$SPIRA_ROOT/dags}"
export AIRFLOW__CORE__PLUGINS_FOLDER="${AIRFLOW__CORE__PLUGINS_FOLDER:-$SPIRA_ROOT/plugins}"
export AIRFLOW__CORE__LOAD_EXAMPLES="${AIRFLOW__CORE__LOAD_EXAMPLES:-False}"
export AIRFLOW__CORE__PARALLELISM="${AIRFLOW__CORE__PARALLELISM:-2}"
export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="${AIRFLOW__DATABASE__SQL_ALCHEMY_CONN:-sqlite:///$AIRFLOW_HOME/airflow.db}"
export AIRFLOW__API__HOST="${AIRFLOW__API__HOST:-127.0.0.1}"

# A thread of OpenMP that waits gives its core away: a training step beside other work took 4.1 s with
# the default and 0.9 s so.  What is computed is the same, bit for bit.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"

# No telemetry: hospital machines tell nobody what they do.
export AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False
export GX_ANALYTICS_ENABLED=false
export MLFLOW_DISABLE_TELEMETRY=true
export DO_NOT_TRACK=1

export SPIRA_SERVICES_FOLDER="${SPIRA_SERVICES_FOLDER:-$SPIRA_ROOT/.spira/services}"
export SPIRA_SNAPSHOTS="${SPIRA_SNAPSHOTS:-$SPIRA_ROOT/.spira/snapshots}"
export SPIRA_TELEMETRY="${SPIRA_TELEMETRY:-$SPIRA_ROOT/.spira/telemetry}"
export SPIRA_SERVICES_DATABASE="${SPIRA_SERVICES_DATABASE:-sqlite:///$SPIRA_SERVICES_FOLDER/services.db}"
