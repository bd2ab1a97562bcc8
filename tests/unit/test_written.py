"""What people have to write is asked for where the recordings are of real people."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from expectations.gates.documents import documents_written
from expectations.words.verdicts import sentence
from spira_tasks.reports import documents


def test_sections_that_nobody_wrote_stop_a_model_of_real_people_only() -> None:
    missing = ["datasheet/collection", "model_card/details"]
    real, invented = (documents_written(missing, synthetic) for synthetic in (False, True))
    assert (real.stops, invented.status) == (True, "pass")
    assert "these sections: Datasheet: Collection process, Model card: Model details" in sentence(
        real, "en"
    )
    assert "while all people are invented" in sentence(invented, "en")
    assert "Every section" in sentence(documents_written([], synthetic=False), "en")


def test_a_section_counts_as_written_in_either_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "FOLDER", tmp_path)
    before = documents.missing()
    assert "datasheet/uses" in before
    (tmp_path / "datasheet").mkdir()
    (tmp_path / "datasheet/uses.pt.md").write_text("Para aprender.\n")
    (tmp_path / "datasheet/motivation.en.md").write_text(" \n")  # empty is as good as absent
    assert set(before) - set(documents.missing()) == {"datasheet/uses"}


def test_the_pages_show_what_people_wrote_in_just_those_sections() -> None:
    templates = Path(documents.__file__).parent / "templates"
    shown = {
        f"{kind}/{section}"
        for kind in documents.SECTIONS
        for section in re.findall(
            r'by_hand\("(\w+)"\)', (templates / f"{kind.replace('_', '-')}.html").read_text()
        )
    }
    every = {f"{kind}/{one}" for kind, sections in documents.SECTIONS.items() for one in sections}
    assert shown == every - documents.BY_PLATFORM
