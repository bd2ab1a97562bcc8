"""What every connector is given and gives back."""

from __future__ import annotations

import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from expectations.personal import holds_personal_data
from spira_services.hospitals.rows import Entry, Participant
from spira_services.hospitals.watch import Alert
from spira_tasks.errors import ConfigError
from spira_tasks.intake.pseudonyms import canonical_number, canonical_site

# What a source calls its fields is kept, to see a new name; text that may be a person's is not.
FIELD_NAME = re.compile(r"[\w.:/|^ -]{1,80}")
UNREADABLE_NAME = "(not shown)"

Form = TypeVar("Form")


@dataclass
class Reading:
    """What one connector read in one go."""

    source: str
    entries: list[Entry] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)  # subjects not read to the end, for a failure
    refused: set[str] = field(default_factory=set)  # subjects of whom it is not clear who they are
    is_partial: bool = False  # whether files were left out
    found: set[str] = field(default_factory=set)  # subjects whom the source knows
    unknown: Counter[str] = field(default_factory=Counter)  # fields that no configuration names
    troubles: dict[tuple[str, str, str], Counter[str]] = field(
        default_factory=lambda: defaultdict(Counter)
    )

    def note(self, code: str, quantity: str = "", name: str = "", /, **numbers: int) -> None:
        """Count a trouble: the same one again adds to its numbers."""
        self.troubles[code, quantity, name].update(numbers or {"times": 1})

    def saw_unknown(self, name: str) -> None:
        """Count a field that is not read, by its name where that can be shown."""
        is_name = FIELD_NAME.fullmatch(name) and not holds_personal_data(name)
        self.unknown[name if is_name else UNREADABLE_NAME] += 1

    def alerts(self) -> list[Alert]:
        return [
            Alert(code, self.source, quantity, name, dict(numbers))
            for (code, quantity, name), numbers in sorted(self.troubles.items())
        ]


class Connector(Protocol):
    """Reads one source of one hospital.

    ``since`` has, for each subject that was read to the end before, the time of the newest change
    seen; a connector may give more than what is newer.
    """

    @property
    def hospital_id(self) -> str: ...

    @property
    def source(self) -> str: ...

    def read(
        self, participants: Sequence[Participant], since: Mapping[str, datetime]
    ) -> Reading: ...


def by_number(participants: Iterable[Participant], reading: Reading) -> dict[str, Participant]:
    """Participants by the one form of their number; a number of two people leads to neither."""
    found: dict[str, Participant] = {}
    shared = set()
    for person in participants:
        number = canonical_number(person.number)
        if not number:
            reading.note("number_of_nobody", participants=1)
            reading.refused.add(person.subject_id)
        elif found.setdefault(number, person).subject_id != person.subject_id:
            shared.add(number)
            reading.refused.add(person.subject_id)
    for number in shared:
        reading.note("number_of_two", numbers=1)
        reading.refused.add(found.pop(number).subject_id)
    return found


def of_hospital(participants: Iterable[Participant], hospital_id: str) -> list[Participant]:
    """Those of one hospital: the same number elsewhere is another person."""
    site = canonical_site(hospital_id)
    return [person for person in participants if canonical_site(person.hospital_id) == site]


def read_files(
    connector: Connector,
    participants: Iterable[Participant],
    there: Iterable[Path],
    max_bytes: int,
    read: Callable[[Path, Mapping[str, Participant], Reading], None],
) -> Reading:
    """Read all files that are there, also known ones: a new participant may be in an old file."""
    reading = Reading(connector.source)
    people = by_number(of_hospital(participants, connector.hospital_id), reading)
    for file in _readable(there, max_bytes, reading):
        read(file, people, reading)
    return reading


def _readable(there: Iterable[Path], max_bytes: int, reading: Reading) -> Iterator[Path]:
    """Files in the order of their names; a missing folder and large files are named."""
    found = 0
    for file in sorted(there):
        if file.name.startswith(".") or not file.is_file():
            continue
        found += 1
        if file.stat().st_size > max_bytes:
            reading.note("too_large", files=1)
            reading.is_partial = True
            continue
        yield file
    if not found:
        reading.note("no_files", folders=1)


def of_toml(file: Path, form: TypeAdapter[Form], what: str) -> Form:
    """Read a configuration file.

    Raises
    ------
    ConfigError
        Names the keys that are wrong, one a line, and no value of theirs.
    """
    try:
        return form.validate_python(tomllib.loads(file.read_text()))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is no TOML: {error}") from None
    except ValidationError as error:
        lines = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ConfigError("\n".join([f"{file} is no {what}:", *lines])) from None
