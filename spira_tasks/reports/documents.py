"""What people write in the datasheet and the model card: one file a section and a language."""

from __future__ import annotations

from typing import Literal

from spira_tasks.provenance import ROOT

Kind = Literal["datasheet", "model_card"]
FOLDER = ROOT / "docs" / "governance"
SECTIONS: dict[Kind, tuple[str, ...]] = {
    "datasheet": (
        *("motivation", "composition", "collection", "preprocessing", "uses", "distribution"),
        "maintenance",
    ),
    "model_card": (
        *("intended_use", "details", "factors", "metrics", "evaluation_data", "training_data"),
        *("quantitative", "ethical", "caveats"),
    ),
}
# Sections that the platform writes alone, from the run.
BY_PLATFORM = {"model_card/metrics", "model_card/training_data", "model_card/quantitative"}


def text(kind: Kind, section: str, language: str) -> str:
    """What people wrote for a section; empty where nobody did."""
    file = FOLDER / kind / f"{section}.{language}.md"
    return file.read_text("utf-8").strip() if file.is_file() else ""


def missing() -> list[str]:
    """The sections that people have to write and that no language has."""
    return [
        f"{kind}/{section}"
        for kind, sections in SECTIONS.items()
        for section in sections
        if f"{kind}/{section}" not in BY_PLATFORM
        and not any(text(kind, section, language) for language in ("pt", "en"))
    ]
