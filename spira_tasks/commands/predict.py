"""``predict``: what a registered model says of recordings; ``export``: the model as ONNX."""

from __future__ import annotations

import csv
import glob
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

from typer import Argument, Option

from spira_tasks import scratch
from spira_tasks.artifacts import Store
from spira_tasks.commands import Commands, OpenStore
from spira_tasks.contract.exits import EXIT_REJECTED
from spira_tasks.errors import ConfigError
from spira_tasks.progress import progress

if TYPE_CHECKING:
    from spira_tasks.tracking import Registered

EXAMPLES = """\
examples:
  python -m spira_tasks predict spira@champion recording.wav
  python -m spira_tasks predict spira@champion ward/ 'old/*.flac' --out answers.csv
  python -m spira_tasks predict spira/3 ward/ --format json

A recording that nobody should judge by gets no answer: no probability, no decision, and
record_again says why.  Of a folder, the files are taken whose name ends as that of an audio file.

exit status: 0 every file got an answer, 65 some got none, 78 there is no such model or file
"""
COLUMNS = (
    *("file", "model", "probability", "decision", "record_again", "unusual", "window_scores"),
    *("operating_point", "version"),
)
AUDIO_NAMES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd"),
    *(".w64", ".mp3", ".m4a", ".mp4", ".3gp", ".webm", ".amr", ".aac"),
)
N_BATCH = 16  # files in memory at a time
MAX_BYTES = 2**27  # of a file: 40 s of two channels of 64 bits at 192 kHz

Row = dict[str, Any]
Model = Annotated[str, Argument(metavar="MODEL", help="spira@champion, or spira/VERSION")]

app = Commands()


@app.command("predict", examples=EXAMPLES)
def predict(
    store: OpenStore,
    model: Model,
    files: Annotated[list[str], Argument(metavar="FILE", help="files, folders or patterns")],
    form: Annotated[Literal["csv", "json"], Option("--format", help="of what is written")] = "csv",
    out: Annotated[Path | None, Option(help="file to write (default: the terminal)")] = None,
) -> int:
    """Score recordings with a registered model."""
    paths = found(files)
    with scratch.folder() as folder, opened(out) as stream:
        name, loaded = load(model, store, folder)
        write = write_csv if form == "csv" else write_json
        rows = progress(answers(loaded, name, paths), "predict", total=len(paths))
        n_unanswered = write(rows, stream)
    if n_unanswered:
        print(f"{n_unanswered} of {len(paths)} files got no answer", file=sys.stderr)
    return EXIT_REJECTED if n_unanswered else 0


@app.command("export")
def export(
    store: OpenStore,
    model: Model,
    out: Annotated[Path, Argument(metavar="FILE", help="to write", dir_okay=False)],
) -> None:
    """Write a registered model as an ONNX graph, from windows of audio to their probabilities."""
    from spira_tasks import onnx_export, package, tracking

    version = find(model, store)
    with scratch.folder() as folder:
        package.fetch(version, tracking.Tracker(store.tracking_uri), store, folder)
        difference = onnx_export.export(folder, out)
    print(
        f"{out}: {tracking.MODEL}/{version.version}, whose probabilities it has to {difference:.0e}"
    )


def found(files: Iterable[str]) -> list[Path]:
    """The files that arguments name, each once, in their order."""
    paths: dict[Path, None] = {}
    for argument in files:
        if Path(argument).is_file():
            here = [Path(argument)]
        elif Path(argument).is_dir():
            inside = sorted(Path(argument).rglob("*"))
            here = [one for one in inside if one.suffix.lower() in AUDIO_NAMES and one.is_file()]
        else:
            # Path.glob takes no absolute pattern
            matching = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207
            here = [Path(one) for one in matching if Path(one).is_file()]
        if not here:
            raise ConfigError(f"{argument}: no such file, and no audio in a folder of that name")
        paths |= dict.fromkeys(here)
    return list(paths)


def find(name: str, store: Store) -> Registered:
    """The version that ``spira/3`` or ``spira@champion`` names."""
    from spira_tasks import tracking

    asked = re.fullmatch(rf"{tracking.MODEL}(?:/(\d+)|@(\w+))", name)
    versions = [version for version, _ in tracking.versions(store.tracking_uri)]
    for one in versions:
        if asked and (one.version == asked[1] or asked[2] in one.aliases):
            return one
    known = [f"{tracking.MODEL}/{one.version}" for one in versions]
    known += [f"{tracking.MODEL}@{alias}" for one in versions for alias in one.aliases]
    raise ConfigError(
        f"{store.url} has no model {name!r}; known are: {', '.join(known) or 'none yet'}"
    )


def load(name: str, store: Store, folder: Path) -> tuple[str, Any]:
    """The name with its number, and the model, whose files are verified before it is loaded."""
    from spira_tasks import package, tracking
    from spira_tasks.speech import cpu

    version = find(name, store)
    cpu.prepare(os.cpu_count() or 1)
    model = package.load(version, tracking.Tracker(store.tracking_uri), store, folder)
    full = f"{tracking.MODEL}/{version.version}"
    if tracking.CHAMPION not in version.aliases:
        print(f"{full} is not the model in use: decide about nobody by it", file=sys.stderr)
    return full, model


def answers(model: Any, name: str, paths: list[Path]) -> Iterator[Row]:
    """One row a file, in the order of the files; ``N_BATCH`` of them are in memory at a time."""
    import pandas as pd

    for start in range(0, len(paths), N_BATCH):
        batch = paths[start : start + N_BATCH]
        contents = [content_of(path) for path in batch]
        readable = [content for content in contents if isinstance(content, bytes)]
        made = model.predict(pd.DataFrame({"audio": readable})) if readable else pd.DataFrame()
        answered = iter(made.to_dict("records"))
        for path, content in zip(batch, contents, strict=True):
            empty: Row = dict.fromkeys(COLUMNS) | {"unusual": [], "window_scores": []}
            row = next(answered) if isinstance(content, bytes) else {"record_again": [content]}
            yield empty | {"file": str(path), "model": name} | row


def content_of(path: Path) -> bytes | str:
    """The bytes of a file, or the code of why it cannot be read."""
    try:
        return path.read_bytes() if path.stat().st_size <= MAX_BYTES else "too_large"
    except OSError:
        return "unreadable"


def write_csv(rows: Iterable[Row], stream: TextIO) -> int:
    """Write a table, lists with a semicolon between; return how many rows have no answer."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    n_unanswered = 0
    for row in rows:
        cells = (row[name] for name in COLUMNS)
        writer.writerow(
            [";".join(map(str, cell)) if isinstance(cell, list) else cell for cell in cells]
        )
        n_unanswered += row["decision"] is None
    return n_unanswered


def write_json(rows: Iterable[Row], stream: TextIO) -> int:
    """Write an array of objects; return how many rows have no answer."""
    n_unanswered, before = 0, "[\n"
    for row in rows:
        stream.write(before + json.dumps(row, ensure_ascii=False))
        before = ",\n"
        n_unanswered += row["decision"] is None
    stream.write("\n]\n")
    return n_unanswered


@contextmanager
def opened(out: Path | None) -> Iterator[TextIO]:
    """Open the terminal, or a file that is there only once it is whole."""
    if out is None:
        yield sys.stdout
        return
    part = out.with_name(f"{out.name}.part")
    try:
        stream = part.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({error.strerror}): choose another") from error
    try:
        with stream:
            yield stream
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
