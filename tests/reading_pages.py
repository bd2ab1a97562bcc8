"""Reads a page as a browser does, and finds what it lacks for people who do not see it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Tags with their attributes in order, the words that are read, and what is malformed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[tuple[str, str]] = []  # innermost tag, text
        self.problems: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        if self._open:
            self.problems.append(f"never closed: {self._open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.problems.append(f"</{tag}> closes another tag")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style" and data.strip():
            self.words.append((self._open[-1], data.strip()))

    @property
    def text(self) -> str:
        return " ".join(word for _, word in self.words)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(file: Path) -> Page:
    return Page(file.read_text("utf-8"))


def barriers(page: Page) -> list[str]:
    """What would stop somebody who reads by ear or by keyboard."""
    found = list(page.problems)
    if not page.all("html")[0].get("lang"):
        found.append("the page does not say its language")
    if sum(tag == "title" for tag, _ in page.words) < 1:
        found.append("the page has no title")
    for landmark in ("header", "nav", "main", "footer"):
        if not page.all(landmark):
            found.append(f"there is no <{landmark}>")
    if page.all("a")[0].get("href") != "#content":
        found.append("the first link does not skip to the content")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    found += [f"two elements are called {name}" for name in set(ids) if ids.count(name) > 1]
    for tag, attributes in page.tags:
        for name in ("aria-labelledby", "aria-describedby"):
            lacking = set(attributes.get(name, "").split()) - set(ids)
            found += [f"{tag} refers to {one}, which is not there" for one in sorted(lacking)]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    if levels.count(1) != 1 or levels[0] != 1:
        found.append("there is not one h1, first")
    found += [
        f"h{after} follows h{before}" for before, after in pairwise(levels) if after > before + 1
    ]
    n_tables, n_captions = len(page.all("table")), len(page.all("caption"))
    if n_tables != n_captions:
        found.append(f"{n_tables} tables have {n_captions} captions")
    if any(header.get("scope") not in {"row", "col"} for header in page.all("th")):
        found.append("a table header does not say what it heads")
    for svg in page.all("svg"):
        if svg.get("class") == "chart" and (svg.get("role"), "aria-labelledby" in svg) != (
            "img",
            True,
        ):
            found.append("a chart has no name")
    return found


def outside(text: str) -> list[str]:
    """Whatever in a page could make a browser ask another host, or leads to one."""
    page = Page(text)
    styles = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    styles += [attributes.get("style", "") for _, attributes in page.tags]
    found = [
        way for style in styles for way in re.findall(r"url\([^)]*\)|@import[^;]*|//\S*", style)
    ]
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "href", "action", "data", "poster", "xlink:href"):
            value = attributes.get(name, "")
            if value.startswith(("//", "\\")) or (":" in value.split("/")[0] and value != "data:,"):
                found.append(f"<{tag} {name}={value}>")
        if tag in {"script", "iframe", "img", "object", "embed", "audio", "video", "base", "form"}:
            found.append(f"<{tag}>")
    return found
