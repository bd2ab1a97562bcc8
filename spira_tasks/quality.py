"""The one module that drives Great Expectations: a table and a suite in, verdicts out."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import great_expectations as gx
import pandas as pd
from great_expectations.core import ExpectationValidationResult
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

from spira_tasks.contract import Verdict

SuiteFor = Callable[[pd.DataFrame], gx.ExpectationSuite]  # thresholds depend on the table's size

# What failing means.  The suite's own ``success`` is false for a failed warning too, so it is
# never asked.
ON_FAILURE: Mapping[str, Literal["pass", "warn", "block"]] = {
    "critical": "block",
    "warning": "warn",
    "info": "pass",
}
# Great Expectations is not to collect unexpected values at all: they are patients' data.
RESULT_FORMAT = {"result_format": "BASIC", "exclude_unexpected_values": True}


@dataclass(frozen=True)
class Report:
    """What a suite said of a table.

    Attributes
    ----------
    suite : str
    n_rows : int
    verdicts : tuple of Verdict
        One an expectation, in the order of their names.
    """

    suite: str
    n_rows: int
    verdicts: tuple[Verdict, ...]


def check(frame: pd.DataFrame, suite: gx.ExpectationSuite) -> Report:
    """Validate a table against a suite, in memory.

    Raises
    ------
    RuntimeError
        When an expectation could not be evaluated: a bug in it or a column of another type, which
        is neither a pass nor a fault of the data.
    """
    context = gx.get_context(mode="ephemeral", project_config=_quiet())
    table = context.data_sources.add_pandas("memory").add_dataframe_asset("table")
    definition = gx.ValidationDefinition(
        name=suite.name,
        data=table.add_batch_definition_whole_dataframe("all"),
        suite=context.suites.add(suite),
    )
    checkpoint = gx.Checkpoint(
        name=suite.name,
        validation_definitions=[context.validation_definitions.add(definition)],
        result_format=RESULT_FORMAT,
    )
    outcome = context.checkpoints.add(checkpoint).run({"dataframe": _without_zones(frame)})
    (validation,) = outcome.run_results.values()
    verdicts = [_verdict(result) for result in validation.results]
    names = [verdict.name for verdict in verdicts]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RuntimeError(f"suite {suite.name}: give {sorted(twice)} different aspects")
    return Report(suite.name, len(frame), tuple(sorted(verdicts, key=lambda v: v.name)))


def _quiet() -> DataContextConfig:
    """Nothing is sent, drawn or written: not even the folder for a site that nobody builds."""
    return DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )


def _without_zones(frame: pd.DataFrame) -> pd.DataFrame:
    """Times in UTC without saying so: Great Expectations drops the zone in a way pandas 4 ends."""
    zoned = frame.select_dtypes("datetimetz")
    return frame.assign(**{name: zoned[name].dt.tz_convert(None) for name in zoned})


def verdict_name(config: ExpectationConfiguration) -> str:
    """What tells an expectation from the others of its suite: kind, columns and aspect."""
    aspect = (config.meta or {}).get("aspect")
    parts = columns_of(config.kwargs) + ([aspect] if aspect else [])
    return f"{config.type}({', '.join(parts)})"


def _verdict(result: ExpectationValidationResult) -> Verdict:
    """Counts, statistics and names; never a value of the table."""
    config = result.expectation_config
    columns = columns_of(config.kwargs)
    meta = config.meta or {}
    name = verdict_name(config)
    _refuse_unevaluated(name, result.exception_info)
    verdict = "pass" if result.success else ON_FAILURE[str(config.severity.value)]
    rationale = str(meta.get("rationale", ""))

    found: Mapping[str, Any] = result.result
    if "element_count" in found:  # looked at row by row
        n = int(found["element_count"]) - int(found.get("missing_count", 0))
        n_unexpected = int(found["unexpected_count"])
        allowed = 1 - float(config.kwargs.get("mostly", 1))
        reason = f"{n_unexpected} of {n} rows are unexpected in {', '.join(columns)}"
        return Verdict(
            name=name,
            verdict=verdict,
            statistic=n_unexpected / n if n else 0.0,
            threshold=round(allowed, 6),
            n=n,
            reason=f"{reason} ({rationale})",
        )
    details: Mapping[str, Any] = found.get("details") or {}
    low = config.kwargs.get("min_value")
    high = details.get("max_value", config.kwargs.get("max_value"))
    observed = found.get("observed_value")
    # a number is an aggregate; anything else would list values of the table
    statistic = float(observed) if isinstance(observed, numbers.Real) else None
    violated = low if low is not None and statistic is not None and statistic < low else high
    return Verdict(
        name=name,
        verdict=verdict,
        statistic=statistic,
        threshold=None if violated is None else float(violated),
        n=details.get("n"),
        reason=rationale
        if statistic is None
        else f"{statistic:.4g} observed{_bounds(low, high)} ({rationale})",
    )


def columns_of(kwargs: Mapping[str, Any]) -> list[str]:
    named = [kwargs[key] for key in ("column", "column_A", "column_B") if kwargs.get(key)]
    return [str(column) for column in [*named, *kwargs.get("column_list", ())]]


def _bounds(low: float | None, high: float | None) -> str:
    parts = [f"at least {low:.4g}"] if low is not None else []
    parts += [f"at most {high:.4g}"] if high is not None else []
    return f", {' and '.join(parts)} expected" if parts else ""


def _refuse_unevaluated(name: str, info: Mapping[str, Any] | None) -> None:
    """Great Expectations catches every exception and calls the expectation failed.

    Its message may quote a cell, so only the kind of the exception is passed on.
    """
    parts = [info or {}, *(part for part in (info or {}).values() if isinstance(part, Mapping))]
    raised = [part for part in parts if part.get("raised_exception")]
    if raised:
        last_line = str(raised[0].get("exception_traceback", "")).strip().splitlines()[-1:]
        kind = last_line[0].partition(":")[0] if last_line else "an exception"
        raise RuntimeError(
            f"{name} could not be evaluated ({kind}); look at the types of its columns"
        )
