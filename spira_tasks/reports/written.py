"""What people write about data and models: Markdown under docs/governance, in two languages.

A file is ``<document>/<section>.<language>.md``.  One that is not there, or is empty, is shown as
missing with its path, so that whoever reads the report knows what nobody has answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from spira_tasks.provenance import ROOT
from spira_tasks.reports.document import Block, Missing, Paragraph, Text

FOLDER = ROOT / "docs" / "governance"


def part(document: str, section: str, what: Text, folder: Path = FOLDER) -> Iterator[Block]:
    """The part of a section that people write, and what of it is missing.

    Parameters
    ----------
    document : {"datasheet", "model_card"}
    section : str
        Key of the section.
    what : Text
        What the part is to answer; shown where it is missing.
    """
    texts = {}
    for language in ("pt", "en"):
        file = folder / document / f"{section}.{language}.md"
        text = file.read_text("utf-8").strip() if file.is_file() else ""
        if text:
            texts[language] = text
        else:
            yield Missing(what, f"docs/governance/{document}/{file.name}")
    if texts:  # in the other language rather than not at all
        either = next(iter(texts.values()))
        yield Paragraph(Text(texts.get("pt", either), texts.get("en", either)), by_hand=True)


def markdown(text: str) -> Markup:
    """What people wrote, as HTML: no HTML of their own, no links, no pictures; headings are h3."""
    reader = MarkdownIt("commonmark", {"html": False})
    reader.enable("table").disable(["link", "image", "autolink", "html_inline", "html_block"])
    tokens = reader.parse(text)
    for token in _headings(tokens):
        token.tag = "h3"
    rendered: str = reader.renderer.render(tokens, reader.options, {})
    return Markup(rendered)  # noqa: S704  (the reader escapes what is not Markdown)


def _headings(tokens: Iterable[Token]) -> Iterable[Token]:
    return (token for token in tokens if token.type in {"heading_open", "heading_close"})
