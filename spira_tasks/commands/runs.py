"""``run``, ``pipeline``, ``show`` and ``cohort``: run steps in this process, and print a run."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Option

from spira_tasks import commands, scratch
from spira_tasks.contract.pipelines import PIPELINES, REPORT, TRAINING, Pipeline
from spira_tasks.contract.step import Step
from spira_tasks.errors import ConfigError, GateRejected, SpiraError

if TYPE_CHECKING:
    from spira_tasks.artifacts import Store

TAKING_DATA = [name for name, pipeline in PIPELINES.items() if pipeline.entry]
TODAY = ("as_of", "pseudonym_key_id", "decoder")  # of ingest: each run takes its own

app = commands.Commands()


def _step(text: str) -> Step:
    try:
        return Step.from_json(text)
    except (ValueError, TypeError) as error:
        raise BadParameter(f"not a step: {error}") from error


def _setting(text: str) -> tuple[str, Any]:
    target, equals, value = text.partition("=")
    if not equals:
        raise BadParameter(f"{text!r}: write <step>.<key>=<value>")
    try:
        return target, json.loads(value)
    except json.JSONDecodeError:
        return target, value


def _pipeline(name: str) -> Pipeline:
    if name not in TAKING_DATA:
        raise BadParameter(f"{name!r} is none of {', '.join(TAKING_DATA)}")
    return PIPELINES[name]


class CohortCommand(commands.Command):
    """``cohort``, whose help lists presets, confounds and faults; it loads numpy to do so."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        from spira_tasks.cohort.people import CONFOUNDS, PRESETS
        from spira_tasks.cohort.recorder import FAULTS

        parts = {"presets": PRESETS, "confounds": CONFOUNDS, "faults": FAULTS}
        for title, names in parts.items():
            with formatter.section(title):
                formatter.write_dl(list(names.items()))


@app.command("run")
def run(
    store: commands.OpenStore,
    step: Annotated[
        Step, Argument(parser=_step, help="name, stage, inputs and config, as one JSON object")
    ],
    run_id: commands.RunId = None,
    assist: Annotated[str, Option(hidden=True, help="compute with the process of this key")] = "",
) -> None:
    """Run one step, given as JSON, and print its result, the only line on stdout."""
    from spira_tasks import runner

    if assist:
        runner.assist(step, run_id or "local", store, assist)
        return
    print(runner.run_step(step, run_id or "local", store).to_json())


@app.command("cohort", cls=CohortCommand)
def cohort(
    out: Annotated[Path, Argument(help="folder to make")],
    subjects: Annotated[int, Option(help="number of people")] = 120,
    seed: int = 1,
    preset: Annotated[str, Option(help="clean, p1 or p2")] = "clean",
    signal: Annotated[float, Option(help="strength of the illness in the voice; 0: none")] = 1.0,
    confound: Annotated[list[str] | None, Option(help="repeatable")] = None,
    fault: Annotated[list[str] | None, Option(help="repeatable")] = None,
    workers: Annotated[int | None, Option(help="processes (default: one for each core)")] = None,
) -> None:
    """Make a synthetic cohort."""
    from spira_tasks.cohort import write_cohort

    counts = write_cohort(
        out,
        subjects=subjects,
        seed=seed,
        preset=preset,
        signal=signal,
        confounds=confound or [],
        faults=fault or [],
        workers=workers,
    )
    print(json.dumps(counts))


@app.command("pipeline")
def run_pipeline(
    store: commands.OpenStore,
    pipeline: Annotated[
        Pipeline, Argument(metavar="NAME", parser=_pipeline, help=", ".join(TAKING_DATA))
    ],
    data: Annotated[str, Option(help="folder or s3://bucket/prefix to ingest")],
    settings: Annotated[
        list[Any] | None,
        Option(
            "--set", parser=_setting, metavar="STEP.KEY=VALUE", help="as train.epochs=5; repeatable"
        ),
    ] = None,
    run_id: commands.RunId = None,
    reports: commands.ReportsFolder = None,
    as_json: commands.AsJson = False,
) -> int:
    """Run a whole pipeline in this process, then print the run."""
    changed = dict(settings or ())
    if sites := os.environ.get("SPIRA_SITES", "").replace(",", " ").split():
        changed.setdefault("ingest.sites", sites)
    try:
        configured = pipeline.configure(data=data, settings=changed)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return run_steps(configured, store, run_id, as_json=as_json, reports=reports)


@app.command("show")
def show(
    store: commands.OpenStore,
    run: Annotated[str, Argument(help="its id, or latest")],
    reports: commands.ReportsFolder = None,
    as_json: commands.AsJson = False,
) -> None:
    """Print a run."""
    _show(commands.find_run(run, store), store, as_json=as_json, reports=reports)


def run_steps(
    steps: Pipeline, store: Store, run_id: str | None, *, as_json: bool, reports: Path | None = None
) -> int:
    """Run the steps one after the other, then print the run; return the exit status."""
    from spira_tasks.runner import check, run_step

    for step in steps:
        check(step)
    run_id = run_id or f"local-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"[:-3]
    print(f"run {run_id}", file=sys.stderr)
    status = 0
    for step in steps:
        try:
            run_step(step, run_id, store)
        except GateRejected as refusal:  # an outcome, printed with the rest of the run
            status = refusal.exit_status
            break
    page = _report(run_id, store)
    _show(run_id, store, as_json=as_json, reports=reports)
    if page and not as_json:
        print(f"\nreport  {page}")
    return status


def _report(run_id: str, store: Store) -> Path | None:
    """Build the governance site of a run, also of a blocked one; return its first page.

    A report that cannot be made leaves a message, and does not change the run's exit status.
    """
    from spira_tasks.reports.site import folder_of, put
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
        site.copy_to(folder)
        return put(folder, folder_of(store, run_id))


def steps_of(run_id: str, store: Store) -> Pipeline:
    """Return the steps of a training run, to be run again on the data of today.

    Steps that the run did not reach have the configuration of the pipeline, and the promotion obeys
    the policy of today.
    """
    recorded = store.runs.read(run_id)
    if "ingest" not in recorded.steps:
        raise ConfigError(f"run {run_id!r} took no recordings in: there is nothing to run again")
    settings = {
        f"{step.name}.{key}": value
        for step in TRAINING
        for key, value in recorded.config(step.name).items()
        if not (step.name == "promote" or (step.name == "ingest" and key in TODAY))
    }
    data = recorded.steps["ingest"].inputs["data"]
    return TRAINING.configure(data=data, settings=settings)


def _show(run_id: str, store: Store, *, as_json: bool, reports: Path | None) -> None:
    from spira_tasks import show as shown

    if as_json:
        print(json.dumps(shown.describe(run_id, store), indent=1))
    else:
        files = shown.export_reports(run_id, store, reports) if reports else []
        shown.render(run_id, store, files)
