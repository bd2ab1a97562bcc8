"""The one module that drives Great Expectations: a table and a suite in, verdicts out."""

from __future__ import annotations

import hashlib
import json
import numbers
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.core import ExpectationValidationResult
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

from expectations.notes import DEFAULT_ACTION
from spira_tasks.contract.verdict import Number, Status, Unit, Verdict

SuiteFor = Callable[[pd.DataFrame], gx.ExpectationSuite]  # thresholds depend on the table's size

# What failing leads to.  The suite's own ``success`` is false for a failed warning too, so it is
# never asked.  Rows that go into quarantine end nothing by themselves: the gate counts them.
ON_FAILURE: Mapping[tuple[str, str], Status] = {
    ("critical", "block"): "block",
    ("critical", "quarantine"): "warn",
    ("critical", "annotate"): "warn",
    ("warning", "annotate"): "warn",
    ("info", "annotate"): "pass",
}
# Which rows, by their number in the table, and never what is in them: great_expectations leaves
# the values out of everything it returns, and so out of its own pages.
RESULT_FORMAT = {
    "result_format": "COMPLETE",
    "exclude_unexpected_values": True,
    "return_unexpected_index_query": False,
}
# What is kept of a result for Data Docs: counts and shares, no rows.
COUNTS = (
    *("element_count", "missing_count", "missing_percent", "unexpected_count"),
    *("unexpected_percent", "unexpected_percent_total", "unexpected_percent_nonmissing"),
)


@dataclass(frozen=True)
class Report:
    """What a suite, as it was made for a table of this size, says of the table."""

    suite: str
    version: str
    digest: str
    n_rows: int
    verdicts: tuple[Verdict, ...]  # one an expectation, in the order of their names
    # Number of a row, from 0, to the codes of the reasons why it belongs into quarantine, such as
    # ``"expect_column_values_to_be_between:age"``.
    faults: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)  # code to its expectation's rationale
    firm: frozenset[str] = frozenset()  # codes of reasons that nobody may release a row from
    # Great Expectations' own result as JSON, without rows, values, times and random names.
    validation: Mapping[str, Any] = field(default_factory=dict)


def check(frame: pd.DataFrame, suite: gx.ExpectationSuite) -> Report:
    """Validate a table against a suite, in memory.

    Raises
    ------
    RuntimeError
        When an expectation could not be evaluated: a bug in it or a column of another type,
        which is neither a pass nor a fault of the data.
    """
    version, digest = str((suite.meta or {}).get("version", "")), digest_of(suite)
    frame = frame.reset_index(drop=True)  # rows are identified by number
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
    results = sorted(validation.results, key=lambda r: verdict_name(r.expectation_config))
    configs = [result.expectation_config for result in results]
    verdicts = [_verdict(result, suite.name) for result in results]
    names = [verdict.id for verdict in verdicts]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RuntimeError(f"suite {suite.name}: give {sorted(twice)} different aspects")
    return Report(
        suite.name,
        version,
        digest,
        len(frame),
        tuple(verdicts),
        _faults(results),
        {reason_code(c): str((c.meta or {}).get("rationale", "")) for c in configs},
        frozenset(reason_code(c) for c in configs if (c.meta or {}).get("firm")),
        _plain(suite.name, results),
    )


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


def digest_of(suite: gx.ExpectationSuite) -> str:
    """The SHA-256 of all that a suite demands: kinds, parameters, severities, reasons, owners."""
    configs = [one.configuration.to_json_dict() for one in suite.expectations]
    parts = ("type", "kwargs", "severity", "meta")
    content = sorted(
        json.dumps({part: config.get(part) for part in parts}, sort_keys=True) for config in configs
    )
    return f"sha256:{hashlib.sha256(json.dumps(content).encode()).hexdigest()}"


def verdict_name(config: ExpectationConfiguration) -> str:
    """What tells an expectation from the others of its suite: kind, columns and aspect."""
    aspect = (config.meta or {}).get("aspect")
    parts = columns_of(config.kwargs) + ([aspect] if aspect else [])
    return f"{config.type}({', '.join(parts)})"


def reason_code(config: ExpectationConfiguration) -> str:
    """Why a row is in quarantine: kind and columns."""
    return f"{config.type}:{'+'.join(columns_of(config.kwargs))}"


def action_of(config: ExpectationConfiguration) -> str:
    """What failing leads to: block, quarantine or annotate."""
    return str((config.meta or {}).get("action") or DEFAULT_ACTION[str(config.severity.value)])


def _faults(results: Iterable[ExpectationValidationResult]) -> dict[int, tuple[str, ...]]:
    """The rows for quarantine and all their reasons, in the order of the rows."""
    codes: dict[int, list[str]] = {}
    for result in results:
        config = result.expectation_config
        if action_of(config) == "quarantine" and not result.success:
            for row in result.result.get("unexpected_index_list") or ():
                codes.setdefault(int(row), []).append(reason_code(config))
    return {row: tuple(dict.fromkeys(codes[row])) for row in sorted(codes)}


def _verdict(result: ExpectationValidationResult, suite: str) -> Verdict:
    """Counts, statistics and names; never a value of the table."""
    config = result.expectation_config
    meta = config.meta or {}
    name = verdict_name(config)
    _refuse_unevaluated(name, result.exception_info)
    severity, action = config.severity.value, action_of(config)
    found: Mapping[str, Any] = result.result
    details: Mapping[str, Any] = found.get("details") or {}
    verdict = Verdict(
        name,
        "pass" if result.success else ON_FAILURE[str(severity), action],
        names={"task": (details["task"],)} if details.get("task") else {},
        suite=suite,
        severity=severity,
        kind=config.type,
        columns=tuple(columns_of(config.kwargs)),
        aspect=str(meta.get("aspect") or ""),
        firm=bool(meta.get("firm")),
    )
    if "element_count" in found:  # looked at row by row
        n = int(found["element_count"]) - int(found.get("missing_count", 0))
        n_unexpected = int(found["unexpected_count"])
        return replace(
            verdict,
            observed=Number(n_unexpected / n if n else 0.0, "share"),
            threshold=round(1 - float(config.kwargs.get("mostly", 1)), 6),
            n=n,
            numbers={"n_unexpected": Number(n_unexpected, "rows")},
        )
    low = config.kwargs.get("min_value")
    high = details.get("max_value", config.kwargs.get("max_value"))
    statistic = _aggregate(found)
    violated = low if low is not None and statistic is not None and statistic < low else high
    bounds = {"min": low, "max": high}
    return replace(
        verdict,
        observed=None if statistic is None else Number(statistic, unit_of(config)),
        threshold=None if violated is None else float(violated),
        n=details.get("n"),
        n_unit="people",
        numbers={n: Number(float(bound)) for n, bound in bounds.items() if bound is not None},
    )


def unit_of(config: ExpectationConfiguration) -> Unit:
    """What the aggregate of an expectation counts."""
    if config.type == "expect_table_row_count_to_be_between":
        return "rows"
    if config.type == "expect_column_unique_value_count_to_be_between":
        return "people" if columns_of(config.kwargs) == ["subject_id"] else "items"
    return "statistic"


def _aggregate(found: Mapping[str, Any]) -> float | None:
    """The one number that was observed; anything else would list values of the table."""
    observed = found.get("observed_value")
    return float(observed) if isinstance(observed, numbers.Real) else None


def columns_of(kwargs: Mapping[str, Any]) -> list[str]:
    named = [kwargs[key] for key in ("column", "column_A", "column_B") if kwargs.get(key)]
    return [str(column) for column in [*named, *kwargs.get("column_list", ())]]


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


def _plain(suite: str, results: list[ExpectationValidationResult]) -> dict[str, Any]:
    """Great Expectations' result with nothing in it but counts, aggregates and configuration."""
    content = []
    for result in results:
        whole = result.to_json_dict()
        config = whole["expectation_config"]
        config["kwargs"].pop("batch_id", None)
        found = {name: whole["result"][name] for name in COUNTS if name in whole["result"]}
        if (aggregate := _aggregate(result.result)) is not None:
            found["observed_value"] = aggregate
        content.append(
            {
                "success": bool(whole["success"]),
                "expectation_config": {k: v for k, v in config.items() if k != "id"},
                "result": found,
            }
        )
    n_successful = sum(result.success is True for result in results)
    return {
        "success": n_successful == len(content),
        "suite_name": suite,
        "results": content,
        "statistics": {
            "evaluated_expectations": len(content),
            "successful_expectations": n_successful,
            "unsuccessful_expectations": len(content) - n_successful,
            "success_percent": 100 * n_successful / len(content) if content else None,
        },
        "meta": {},
    }
