"""The few pages that are made on request: messages, a run without a report, and one step.

They show what the records of steps hold: states, verdicts, reasons and counts, small ones
suppressed, and no value of a patient.  In the reader's language, without a script.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader

from expectations.words import Language, words_of
from expectations.words import verdicts as words
from spira.store import summary
from spira_tasks.contract.run import StepRecord

if TYPE_CHECKING:
    from spira.deciding import Choices

HERE = Path(__file__).parent


def message(name: str, language: Language, detail: str = "", link: str = "") -> str:
    """A page with the text ``airflow.<name>`` and, below it, a detail for an operator or a link."""
    return _page(language, title="SPIRA", message=name, detail=detail, link=link)


def decide_page(run_id: str, choices: Choices, language: Language) -> str:
    """The forms by which a person decides about a run."""
    title = words_of(language)("airflow.decide")
    return _page(language, title=title, run_id=run_id, choices=choices)


def run_page(
    run_id: str, records: Mapping[str, StepRecord | None], may_decide: bool, language: Language
) -> str:
    """The verdicts of a run so far: ``records`` by step, None for a step without one."""
    title = words_of(language)("airflow.run", run=run_id)
    return _page(language, title=title, run_id=run_id, records=records, may_decide=may_decide)


def step_page(run_id: str, record: StepRecord, language: Language) -> str:
    """The verdict of a step, its counts, and the checks that failed."""
    title = words_of(language).name("step", record.step)
    return _page(language, title=title, run_id=run_id, record=record)


def _page(language: Language, **values: object) -> str:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["quoted"] = lambda text: quote(text, safe="")
    environment.globals |= {"summary": summary, "of_verdict": words}
    page = environment.get_template("governance_pages.html")
    return page.render(t=words_of(language), language=language, **values)
