"""Great Expectations' own pages, from the results that the gates kept."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from great_expectations.core import ExpectationSuiteValidationResult
from great_expectations.core.expectation_validation_result import (
    expectationSuiteValidationResultSchema,
)
from great_expectations.render.renderer import ValidationResultsPageRenderer
from great_expectations.render.view import DefaultJinjaPageView

from spira_tasks.contract.verdict import MIN_CELL
from spira_tasks.quality import columns_of

OWN_EXPECTATIONS = tuple(
    f"expectations.suites.{name}" for name in ("custom", "drift", "training_set")
)
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PERSON = "subject_id"


def write(validations: Mapping[str, Mapping[str, Any]], folder: Path) -> list[Path]:
    """Write Great Expectations' own pages ``<suite>.html`` into ``folder``; return their paths.

    They ask outside hosts for scripts and styles.  They hold no value of the table, because
    ``gx.json`` has none, and no count of fewer than five rows.  ``validations`` maps the name of a
    suite to its validation: the content of ``gx.json``.
    """
    for module in OWN_EXPECTATIONS:  # what is not registered cannot be rendered
        importlib.import_module(module)
    folder.mkdir(parents=True, exist_ok=True)
    pages = []
    for suite, content in sorted(validations.items()):
        shown = {**content, "results": [without_few(one) for one in content["results"]]}
        loaded = expectationSuiteValidationResultSchema.load(json.loads(json.dumps(shown)))
        result = ExpectationSuiteValidationResult(**loaded) if isinstance(loaded, dict) else loaded
        text = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(result))
        page = folder / f"{suite}.html"
        page.write_text(_without_chance(text), encoding="utf-8")
        pages.append(page)
    return pages


def without_few(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result without small counts, and without the shares that reveal them."""
    found: dict[str, Any] = dict(result["result"])
    for kind in ("missing", "unexpected"):
        if 0 < found.get(f"{kind}_count", 0) < MIN_CELL:
            found = {name: value for name, value in found.items() if not name.startswith(kind)}
    about = result["expectation_config"]
    is_people = "unique_value_count" in about["type"] and columns_of(about["kwargs"]) == [PERSON]
    if is_people and found.get("observed_value", MIN_CELL) < MIN_CELL:
        del found["observed_value"]
    return {**result, "result": found}


def _without_chance(page: str) -> str:
    """The page with numbers in place of random names and without the time in the logo's address."""
    names = dict.fromkeys(UUID.findall(page))
    for number, name in enumerate(names):
        page = page.replace(name, f"part-{number}")
    return re.sub(r"\?d=[^\"']*", "", page)
