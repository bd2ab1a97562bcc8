"""``python -m spira_tasks``: the one way a stage is started, on a laptop and in a container."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spira_tasks.commands import (
    audit,
    erase,
    expectations,
    model,
    open_store,
    pseudonyms,
    quarantine,
    report,
    retention,
    runs,
    trace,
    waive,
)
from spira_tasks.contract.step import Step
from spira_tasks.errors import SpiraError
from spira_tasks.governance.audit import forget_airflow

if TYPE_CHECKING:
    pass

# each adds its own parsers
COMMANDS = (
    runs,
    report,
    quarantine,
    waive,
    model,
    expectations,
    trace,
    audit,
    erase,
    pseudonyms,
    retention,
)

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


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser(sys.argv[1:] if argv is None else argv).parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    logging.getLogger("spira_tasks").setLevel(args.log_level)
    logging.captureWarnings(capture=True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)  # of libraries: not for our users
    signal.signal(signal.SIGTERM, _stop)
    if args.command is not run_step:
        forget_airflow()
    try:
        return int(args.command(args))
    except SpiraError as error:
        print(f"{_title(error)}: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted: what is finished is kept, run it again to go on", file=sys.stderr)
        return 130


def run_step(args: argparse.Namespace) -> int:
    """Run one step and print its result, the only line on stdout."""
    from spira_tasks.runner import run_step as run

    print(run(args.step, args.run_id or "local", open_store(args)).to_json())
    return 0


def make_cohort(args: argparse.Namespace) -> int:
    from spira_tasks.cohort import write_cohort

    counts = write_cohort(
        args.out,
        subjects=args.subjects,
        seed=args.seed,
        preset=args.preset,
        signal=args.signal,
        confounds=args.confound,
        faults=args.fault,
        workers=args.workers,
    )
    print(json.dumps(counts))
    return 0


def _stop(signum: int, frame: object) -> None:
    """End like a Ctrl-C, so that temporary files are removed; what is finished is kept."""
    raise SystemExit(128 + signum)


def _title(error: SpiraError) -> str:
    words = {"GateRejected": "refused", "ConfigError": "error"}
    return words.get(type(error).__name__, type(error).__name__)


def _step(text: str) -> Step:
    try:
        return Step.from_json(text)
    except (ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"not a step: {error}") from error


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m spira_tasks",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--store",
        help="folder or s3://bucket/prefix of the store (SPIRA_STORE; default .spira/store)",
    )
    common.add_argument(
        "--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"]
    )
    of_run = argparse.ArgumentParser(add_help=False)
    of_run.add_argument("--run-id", help="names the run; one already used is continued")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", parents=[common, of_run], help="run one step, given as JSON")
    run.add_argument("step", type=_step, help="name, stage, inputs and config, as one JSON object")
    run.set_defaults(command=run_step)

    cohort = commands.add_parser(
        "cohort",
        parents=[common],
        help="make a synthetic cohort",
        epilog=_cohort_names() if "cohort" in argv[:1] else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_cohort(cohort)
    for module in COMMANDS:
        module.add(commands, common)
    return parser


def _cohort_names() -> str:
    """Presets, confounds and faults, each with its line; loads numpy, so only when asked for."""
    from spira_tasks.cohort.people import CONFOUNDS, PRESETS
    from spira_tasks.cohort.recorder import FAULTS

    parts = {"presets": PRESETS, "confounds": CONFOUNDS, "faults": FAULTS}
    lines = []
    for title, names in parts.items():
        lines += [f"{title}:", *(f"  {name:<20}{line}" for name, line in names.items()), ""]
    return "\n".join(lines)


def _add_cohort(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--subjects", type=int, default=120, help="how many people (default 120)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--preset", default="clean", help="clean, p1 or p2")
    parser.add_argument(
        "--signal", type=float, default=1.0, help="strength of the illness in the voice; 0: none"
    )
    parser.add_argument("--confound", action="append", default=[], metavar="NAME")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.set_defaults(command=make_cohort)
