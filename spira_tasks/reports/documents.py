"""The datasheet of a dataset (Gebru et al., 2021) and the model card (Mitchell et al., 2019).

Their templates show the facts of a run.  The rest is text that people write as Markdown, in
``docs/governance/<document>/<section>.<language>.md``.  A file that is absent or empty is shown as
missing, with its path.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from markdown_it import MarkdownIt
from markupsafe import Markup

from expectations.words import LANGUAGES, Language, Words
from spira_tasks.intake.record_contract import COLUMNS
from spira_tasks.provenance import ROOT
from spira_tasks.reports import figures
from spira_tasks.reports.facts import Counts, RunFacts
from spira_tasks.reports.figures import Figure
from spira_tasks.reports.tables import BANDS, MIN_SLICE

Kind = Literal["datasheet", "model_card"]
FOLDER = ROOT / "docs" / "governance"
SECTIONS: dict[Kind, tuple[str, ...]] = {
    "datasheet": (
        *("motivation", "composition", "collection", "preprocessing", "uses", "distribution"),
        "maintenance",
    ),
    "model_card": (
        *("details", "intended_use", "factors", "metrics", "evaluation_data", "training_data"),
        *("quantitative", "ethical", "caveats"),
    ),
}


def context(kind: Kind, t: Words) -> dict[str, Any]:
    """What the templates of both documents use."""

    def people(counts: Counts) -> Figure:
        by = "_".join(counts.by)
        return figures.of_counts(t, counts, f"people-{by}", t(f"people.{by}"))

    return {
        "kind": kind,
        "sections": SECTIONS[kind],
        "parts": {section: part(kind, section, t.language) for section in SECTIONS[kind]},
        "gaps": [],
        "people": people,
        "of_counts": lambda counts, name, title: figures.of_counts(t, counts, name, title),
    }


def part(kind: Kind, section: str, language: Language) -> tuple[Markup, str]:
    """The text that people wrote for a section, and its path where the language lacks it.

    A text that the language lacks is shown in the other one.
    """
    texts = {}
    for one in sorted(LANGUAGES, key=lambda one: one != language):
        file = FOLDER / kind / f"{section}.{one}.md"
        texts[one] = file.read_text("utf-8").strip() if file.is_file() else ""
    path = f"docs/governance/{kind}/{section}.{language}.md"
    text = next(filter(None, texts.values()), "")
    return markdown(text), "" if texts[language] else path


def markdown(text: str) -> Markup:
    """Convert to HTML without raw HTML, links and pictures; headings become h3."""
    reader = MarkdownIt("commonmark", {"html": False})
    reader.enable("table").disable(["link", "image", "autolink", "html_inline", "html_block"])
    tokens = reader.parse(text)
    for token in tokens:
        if token.type in {"heading_open", "heading_close"}:
            token.tag = "h3"
    rendered: str = reader.renderer.render(tokens, reader.options, {})
    return Markup(rendered)  # noqa: S704  (the reader escapes what is not Markdown)


def not_validated_for(t: Words, facts: RunFacts) -> Iterator[str]:
    """What the evaluation says nothing about, a sentence each."""
    if facts.evaluation is None:
        yield t("not_validated.anything")
        return
    if facts.synthetic:
        yield t("not_validated.people")
    task = str(facts.model.training.get("task", "")) if facts.model else ""
    others = ", ".join(name for name in COLUMNS["task"].values if name != task)
    yield t("not_validated.tasks", task=task, others=others)
    slices = facts.evaluation.slices
    known = {
        "sex": [name for name in COLUMNS["sex"].values if name != "UNKNOWN"],
        "age": list(BANDS),
        "site": [one.group for one in slices if one.by == "site"],
        "device": [one.group for one in slices if one.by == "device"],
    }
    for by, groups in known.items():
        measured = [one for one in slices if one.by == by and one.sensitivity and one.specificity]
        enough = {one.group for one in measured}
        if weak := ", ".join(group for group in groups if group not in enough):
            by_name = t(f"by.{by}").lower()
            yield t("not_validated.groups", by=by_name, groups=weak, n=MIN_SLICE)
    yield t("not_validated.elsewhere")


def slice_rows(t: Words, facts: RunFacts) -> list[tuple[str, ...]]:
    """Groups of test subjects, their sizes and rates."""
    return [
        (
            f"{t(f'by.{one.by}')}: {one.group}",
            t.cell(one.n_patients),
            t.cell(one.n_controls),
            *(
                t.interval(rate.value, rate.low, rate.high)
                if rate
                else t("model_card.insufficient")
                for rate in (one.sensitivity, one.specificity)
            ),
        )
        for one in (facts.evaluation.slices if facts.evaluation else ())
    ]
