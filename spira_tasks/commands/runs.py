"""``pipeline`` and ``show``: run all steps in this process, and print what a run came to."""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spira_tasks import scratch
from spira_tasks.commands import find_run, open_store
from spira_tasks.contract.pipelines import PIPELINES, REPORT, TRAINING, Pipeline
from spira_tasks.errors import ConfigError, GateRejected, SpiraError

if TYPE_CHECKING:
    from spira_tasks.artifacts import Store

TODAY = ("as_of", "pseudonym_key_id")  # of ingest: each run takes its own


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    shown = argparse.ArgumentParser(add_help=False)
    shown.add_argument("--json", action="store_true", help="the stable interface of docs/run.md")
    shown.add_argument(
        "--reports", type=Path, metavar="DIR", help="copy the run's reports and plots to DIR/RUN"
    )
    pipeline = commands.add_parser(
        "pipeline", parents=[common, shown], help="run a whole pipeline in this process"
    )
    pipeline.add_argument("name", choices=[name for name, one in PIPELINES.items() if one.entry])
    pipeline.add_argument("--run-id", help="names the run; one already used is continued")
    pipeline.add_argument("--data", required=True, help="folder or s3://bucket/prefix to ingest")
    pipeline.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="STEP.KEY=VALUE",
        help="change a step's configuration, for example train.epochs=5; may be repeated",
    )
    pipeline.set_defaults(command=run_pipeline)

    show_ = commands.add_parser("show", parents=[common, shown], help="print a run")
    show_.add_argument("run", help="its id, or latest")
    show_.set_defaults(command=show)


def run_pipeline(args: argparse.Namespace) -> int:
    """Run every step of a pipeline in this process, then show the run."""
    settings = dict(args.set)
    if sites := os.environ.get("SPIRA_SITES", "").replace(",", " ").split():
        settings.setdefault("ingest.sites", sites)
    try:
        steps = PIPELINES[args.name].configure(data=args.data, settings=settings)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return run_steps(steps, open_store(args), args)


def show(args: argparse.Namespace) -> int:
    """Print what is known of a run."""
    store = open_store(args)
    _show(find_run(args, store), store, args)
    return 0


def run_steps(steps: Pipeline, store: Store, args: argparse.Namespace) -> int:
    """Run the steps one after the other as run ``args.run_id``, then show the run."""
    from spira_tasks.runner import check, run_step

    for step in steps:
        check(step)
    run_id = args.run_id or f"local-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"[:-3]
    print(f"run {run_id}", file=sys.stderr)
    status = 0
    for step in steps:
        try:
            run_step(step, run_id, store)
        except GateRejected as refusal:  # an outcome, told with the rest of the run
            status = refusal.exit_status
            break
    page = _report(run_id, store)
    _show(run_id, store, args)
    if page and not args.json:
        print(f"\nreport  {page}")
    return status


def _report(run_id: str, store: Store) -> Path | None:
    """Build the governance site, whatever became of the run; return its first page.

    A report that cannot be made is told, and takes nothing from the run.
    """
    from spira_tasks.commands.report import folder_of, put
    from spira_tasks.runner import run_step

    (step,) = REPORT
    try:
        site = store.directory(run_step(step, run_id, store).outputs["site"])
    except SpiraError as error:
        print(f"no report: {error}", file=sys.stderr)
        return None
    if "://" in store.url:
        return None
    with scratch.folder() as folder:
        for name in site.names:
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(site.read(name))
        return put(folder, folder_of(store, run_id))


def steps_of(run_id: str, store: Store) -> Pipeline:
    """The steps of a training run, to be run again on the data of today.

    Steps that it did not come to have the configuration of the pipeline.
    """
    run = store.runs.read(run_id)
    if "ingest" not in run.steps:
        raise ConfigError(f"run {run_id!r} took no recordings in: there is nothing to run again")
    settings = {
        f"{step.name}.{key}": value
        for step in TRAINING
        for key, value in run.config(step.name).items()
        if not (step.name == "ingest" and key in TODAY)
    }
    data = run.steps["ingest"].inputs["data"]
    return TRAINING.configure(data=data, settings=settings)


def _show(run_id: str, store: Store, args: argparse.Namespace) -> None:
    from spira_tasks import show as shown

    description = shown.describe(run_id, store)
    if args.json:
        print(json.dumps(description, indent=1))
    else:
        reports = shown.export_reports(run_id, store, args.reports) if args.reports else []
        shown.render(description, run_id, store, reports)


def _setting(text: str) -> tuple[str, Any]:
    target, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: write <step>.<key>=<value>")
    try:
        return target, json.loads(value)
    except json.JSONDecodeError:
        return target, value
