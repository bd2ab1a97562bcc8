"""``python -m spira_tasks``: starts every stage, on a laptop and in a container."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from functools import cache

from typer.main import get_command

from spira_tasks.commands import Commands, runs
from spira_tasks.contract.exits import EXIT_BUG
from spira_tasks.contract.place import COMMAND
from spira_tasks.errors import SpiraError
from spira_tasks.governance.audit import forget_airflow

EXAMPLES = """\
examples:
  python -m spira_tasks cohort .spira/cohort --subjects 120 --seed 1
  python -m spira_tasks pipeline training --data .spira/cohort --set train.epochs=5
  python -m spira_tasks show latest
  python -m spira_tasks run '{"name": "split", "stage": "split",
                              "inputs": {"recordings": "check_recordings.table"}}' --run-id R

exit status:
  0 done    1 a bug    2 wrong usage    65 a gate refused the data or the model
  75 a service did not answer: try again    78 the configuration is wrong
"""
INTERRUPTED = 130
TITLES = {"GateRejected": "refused", "ConfigError": "error"}


@cache
def whole() -> Commands:
    """Every command."""
    from spira_tasks.commands import (
        audit,
        data,
        erase,
        expectations,
        experiment,
        features,
        model,
        policy,
        predict,
        presets,
        pseudonyms,
        quarantine,
        report,
        reproduce,
        retention,
        trace,
        waive,
    )

    app = Commands(None, "Run steps and pipelines, and decide on what they leave.", EXAMPLES)
    for module in (
        *(data, runs, presets, report, quarantine, waive, model, policy, predict, expectations),
        *(trace, audit, erase, pseudonyms, retention, experiment, features, reproduce),
    ):
        app.add_typer(module.app)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    logging.captureWarnings(capture=True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)  # of libraries: not for our users
    signal.signal(signal.SIGTERM, _stop)
    is_step = arguments[:1] == ["run"]
    if not is_step:
        forget_airflow()
    # What the other commands import takes as long as all that a found step does.
    app = runs.app if is_step else whole()
    try:
        get_command(app)(arguments, prog_name=COMMAND)
    except SpiraError as error:
        title = TITLES.get(type(error).__name__, type(error).__name__)
        print(f"{title}: {error}", file=sys.stderr)
        return error.exit_status
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("interrupted: what is finished is kept, run it again to go on", file=sys.stderr)
        return end.code if isinstance(end.code, int) else EXIT_BUG
    return 0


def _stop(signum: int, frame: object) -> None:
    """End like a Ctrl-C, so that temporary files are removed; what is finished is kept."""
    raise SystemExit(128 + signum)
