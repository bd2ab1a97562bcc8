"""The few pages that are made on request: messages, a run without a report, and one step.

They show what the records of steps hold: states, verdicts, reasons and counts, small ones
suppressed, and no value of a patient.  In English and in Portuguese, without a script.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader

from expectations.words import words_of
from expectations.words.verdicts import description
from spira.store import explanation, summary
from spira_tasks.contract.record import verdicts_of
from spira_tasks.contract.verdict import Verdict, explain

HERE = Path(__file__).parent


def message(name: str, detail: str = "") -> str:
    """A page with the text ``airflow.<name>`` and, below it, a detail for an operator."""
    return _page(title="SPIRA", message=name, detail=detail)


def run_page(run_id: str, records: Mapping[str, Mapping[str, Any] | None]) -> str:
    """The verdicts of a run so far: ``records`` by step, None for a step without one."""
    return _page(title=f"Run {run_id}", run_id=run_id, records=records)


def step_page(run_id: str, name: str, record: Mapping[str, Any]) -> str:
    """The verdict of a step, its counts, and the checks that failed."""
    return _page(title=name, run_id=run_id, record=record)


def _page(**values: object) -> str:
    return _environment().get_template("governance_pages.html").render(**values)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["quoted"] = lambda text: quote(text, safe="")
    environment.globals |= {
        "en": words_of("en"),
        "pt": words_of("pt"),
        "summary": summary,
        "explanation": explanation,
        "verdicts_of": verdicts_of,
        "explain": explain,
        "check_titles": _titles,
    }
    return environment


def _titles(verdict: Verdict) -> tuple[str, ...]:
    """What a check looks at, in plain words of both languages; empty when it has none."""
    known = {"name": verdict.id, "suite": verdict.suite, "threshold": verdict.threshold}
    english, portuguese = description(known, "en"), description(known, "pt")
    return (english.title, portuguese.title) if english and portuguese else ()
