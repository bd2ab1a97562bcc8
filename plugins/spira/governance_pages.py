"""The few pages that are made on request: messages, a run without a report, and one step.

They show what the records of steps hold: states, verdicts, reasons and counts, small ones
suppressed, and no value of a patient.  In English and in Portuguese, without a script.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader

from expectations.words import LANGUAGES, words_of
from expectations.words import verdicts as words
from spira.store import summary
from spira_tasks.contract.run import StepRecord

HERE = Path(__file__).parent


def message(name: str, detail: str = "") -> str:
    """A page with the text ``airflow.<name>`` and, below it, a detail for an operator."""
    return _page(title="SPIRA", message=name, detail=detail)


def run_page(run_id: str, records: Mapping[str, StepRecord | None]) -> str:
    """The verdicts of a run so far: ``records`` by step, None for a step without one."""
    return _page(title=f"Run {run_id}", run_id=run_id, records=records)


def step_page(run_id: str, record: StepRecord) -> str:
    """The verdict of a step, its counts, and the checks that failed."""
    return _page(title=record.step, run_id=run_id, record=record)


def _page(**values: object) -> str:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["quoted"] = lambda text: quote(text, safe="")
    environment.globals |= {language: words_of(language) for language in LANGUAGES}
    environment.globals |= {"summary": summary, "of_verdict": words}
    return environment.get_template("governance_pages.html").render(**values)
