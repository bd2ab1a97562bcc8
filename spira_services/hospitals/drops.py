"""Read CSV files that a hospital drops into a folder, by a mapping file of the hospital.

The mapping is TOML::

    hospital_id = "hc"
    pattern = "vitals_*.csv"
    delimiter = ";"
    decimal = ","
    offset = "-03:00"                 # of times that have none, where the hospital states it
    time_format = "%d/%m/%Y %H:%M"    # without it: ISO

    [columns]
    number = "PRONTUARIO"
    at = "DATA_HORA"
    id = "ID"                         # names the row for ever; optional, as are the next two
    updated = "ALTERADO_EM"
    status = "SITUACAO"

    [status]
    Liberado = "final"

    [[measures]]                      # a column of its own
    quantity = "temp"
    column = "TEMPERATURA"
    unit = "Cel"

    [[measures]]                      # rows of one kind in a long table
    quantity = "unit"
    column = "VALOR"
    where = { ITEM = "SETOR" }
    values = { UTI = "ICU" }

The unit of a measure is stated in the mapping or in a column, or not at all.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from spira_services.hospitals.reading import Reading, of_toml, read_files
from spira_services.hospitals.rows import (
    Entry,
    Participant,
    Quantity,
    Status,
    aware,
    in_utc,
    instant,
)
from spira_tasks.config import StageConfig
from spira_tasks.intake.pseudonyms import canonical_number

MAX_BYTES = 256 << 20  # of a file
MAX_CELL = 4096  # characters
Offset = Annotated[str, Field(pattern=r"^([+-]\d\d:\d\d)?$")]
Mark = Annotated[str, Field(min_length=1, max_length=1)]


class Columns(StageConfig):
    number: str
    at: str
    id: str = ""
    updated: str = ""
    status: str = ""


class Measure(StageConfig):
    """Where a quantity stands: a column, in rows where other columns have these values."""

    quantity: Quantity
    column: str
    unit: str = ""
    unit_column: str = ""
    where: dict[str, str] = Field(default_factory=dict)
    values: dict[str, str | bool] = Field(
        default_factory=dict
    )  # as the hospital writes them, to ours

    @property
    def name(self) -> str:
        return "/".join([self.column, *self.where.values()])


class Mapped(StageConfig):
    """The mapping file of a hospital."""

    hospital_id: str
    columns: Columns
    measures: list[Measure] = Field(min_length=1)
    status: dict[str, Status] = Field(default_factory=dict)
    pattern: str = "*.csv"
    delimiter: Mark = ","
    decimal: Mark = "."
    encoding: str = "utf-8-sig"
    offset: Offset = ""
    time_format: str = ""

    @property
    def needed(self) -> set[str]:
        """Return the columns that have to be there."""
        columns = {*self.columns.model_dump().values()}
        for measure in self.measures:
            columns |= {measure.column, measure.unit_column, *measure.where}
        return columns - {""}


def mapping(file: Path) -> Mapped:
    """Read a mapping file.

    Raises
    ------
    ConfigError
        Names the keys that are wrong, one a line.
    """
    return of_toml(file, TypeAdapter(Mapped), "mapping of columns")


@dataclass(frozen=True)
class CsvFiles:
    """A folder into which a hospital puts tables."""

    folder: Path
    mapped: Mapped

    @property
    def hospital_id(self) -> str:
        return self.mapped.hospital_id

    @property
    def source(self) -> str:
        return f"{self.hospital_id}:csv"

    def read(
        self,
        participants: Sequence[Participant],
        since: Mapping[str, datetime],  # noqa: ARG002
    ) -> Reading:
        """Read all files that are there."""
        there = self.folder.glob(self.mapped.pattern)
        return read_files(self, participants, there, MAX_BYTES, self._file)

    def _file(self, file: Path, people: Mapping[str, Participant], reading: Reading) -> None:
        for row in self._rows(file, reading):
            person = people.get(canonical_number(row[self.mapped.columns.number]))
            if person:
                reading.found.add(person.subject_id)
                reading.entries += self._entries(row, person.subject_id, reading)

    def _rows(self, file: Path, reading: Reading) -> Iterator[dict[str, str]]:
        try:
            content = file.read_bytes().decode(self.mapped.encoding)
        except UnicodeDecodeError:
            reading.note("unreadable_file", files=1)
            reading.is_partial = True
            return
        if content and not content.endswith(("\n", "\r")):
            # Half a line may hold half a number.
            content = content[: max(content.rfind("\n"), content.rfind("\r")) + 1]
            reading.note("cut_file", files=1)
        lines = csv.reader(io.StringIO(content, newline=""), delimiter=self.mapped.delimiter)
        try:
            header = [name.strip() for name in next(lines, [])]
            if missing := sorted(self.mapped.needed - {*header}):
                for column in missing:
                    reading.note("field_missing", "", column, files=1)
                    reading.is_partial = True
                return
            for line in lines:
                if not line:
                    continue
                if len(line) != len(header) or max(map(len, line)) > MAX_CELL:
                    reading.note("unreadable_rows", rows=1)
                    continue
                yield dict(zip(header, (cell.strip() for cell in line), strict=True))
        except csv.Error:
            reading.note("unreadable_file", files=1)
            reading.is_partial = True

    def _entries(
        self, row: Mapping[str, str], subject_id: str, reading: Reading
    ) -> Iterator[Entry]:
        columns = self.mapped.columns
        status: Status = "final"
        if columns.status:
            status = self.mapped.status.get(row[columns.status], "unknown")
        at, known = self._instant(row[columns.at]), False
        updated = self._instant(row[columns.updated]) if columns.updated else at
        for measure in self.mapped.measures:
            if any(row[column] != value for column, value in measure.where.items()):
                continue
            known = True
            written = row[measure.column]
            value: str | bool | None = measure.values.get(written, written or None)
            if isinstance(value, str) and self.mapped.decimal != ".":
                value = re.sub(rf"(?<=\d){re.escape(self.mapped.decimal)}(?=\d)", ".", value)
            yield Entry(
                subject_id,
                measure.quantity,
                measure.name,
                value,
                (row[measure.unit_column] if measure.unit_column else measure.unit) or None,
                at,
                status,
                (columns.id and row[columns.id]) or None,
                aware(updated),
            )
        if not known:  # a long table: its kinds of rows are its fields
            kinds = {column for measure in self.mapped.measures for column in measure.where}
            reading.saw_unknown("/".join(row[column] for column in sorted(kinds)))

    def _instant(self, text: str) -> datetime | None:
        if not self.mapped.time_format:
            text = text.replace(" ", "T", 1)
            read = instant(text)
            return instant(text + self.mapped.offset) if read and not read.tzinfo else read
        try:
            written = datetime.strptime(text, self.mapped.time_format)  # noqa: DTZ007
        except ValueError:
            return None
        return in_utc(written.isoformat() + ("" if written.tzinfo else self.mapped.offset))
