"""Which hospitals are read, and how: one TOML file, a table a hospital.

The file::

    [hc]
    connector = "fhir"
    address = "https://fhir.hospital.example/r4"
    system = "urn:oid:2.16.76.1.3.1"   # of the hospital numbers in Patient.identifier
    secret_file = "hc.secret"          # its first line is the Authorization header: Bearer …
    wards = { "UTI-3" = "ICU" }        # places of the hospital, as the row contract names them

    [interior]
    connector = "hl7"
    folder = "/data/interior"
    offset = "-0300"                   # of times that have none

    [santa]
    connector = "csv"
    folder = "/data/santa"
    mapping = "santa.toml"             # see ``drops``

A relative path starts at the folder of the file.  More keys: the fields of the classes below, each
explained at the connector that it goes to.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from spira_services.hospitals import drops, fhir, hl7
from spira_services.hospitals.reading import Connector, of_toml
from spira_services.hospitals.rows import Quantity
from spira_tasks.config import StageConfig
from spira_tasks.errors import ConfigError

VARIABLE = "SPIRA_HOSPITALS"  # the file


class OfFhir(StageConfig):
    connector: Literal["fhir"]
    address: str
    system: str
    secret_file: str = ""
    entry_system: str = ""
    codes: dict[str, Quantity] = Field(default_factory=dict)  # beside those of LOINC
    wards: dict[str, str] = Field(default_factory=dict)
    tries: int = Field(default=5, ge=1)

    def opened(self, hospital_id: str, folder: Path) -> Connector:
        return fhir.Fhir(
            hospital_id,
            self.address,
            self.system,
            authorization=_secret(folder / self.secret_file) if self.secret_file else "",
            codes={**fhir.CODES, **self.codes},
            wards=self.wards,
            entry_system=self.entry_system,
            tries=self.tries,
        )


class OfHl7(StageConfig):
    connector: Literal["hl7"]
    folder: str
    pattern: str = "*.hl7"
    number_types: list[str] = Field(default_factory=lambda: ["MR", "PI"])
    authority: str = ""
    offset: str = ""
    codes: dict[str, Quantity] = Field(default_factory=dict)  # beside those of LOINC
    wards: dict[str, str] = Field(default_factory=dict)

    def opened(self, hospital_id: str, folder: Path) -> Connector:
        return hl7.Hl7Files(
            hospital_id,
            folder / self.folder,
            pattern=self.pattern,
            number_types=self.number_types,
            authority=self.authority,
            codes={**hl7.CODES, **self.codes},
            wards=self.wards,
            offset=self.offset,
        )


class OfCsv(StageConfig):
    connector: Literal["csv"]
    folder: str
    mapping: str

    def opened(self, hospital_id: str, folder: Path) -> Connector:
        mapped = drops.mapping(folder / self.mapping)
        if mapped.hospital_id != hospital_id:
            raise ConfigError(
                f"{folder / self.mapping} is the mapping of {mapped.hospital_id}, not of "
                f"{hospital_id}: name the file of this hospital"
            )
        return drops.CsvFiles(folder / self.folder, mapped)


Sources = TypeAdapter(
    dict[str, Annotated[OfFhir | OfHl7 | OfCsv, Field(discriminator="connector")]]
)


def connectors(file: str = "", hospital_ids: Iterable[str] = ()) -> list[Connector]:
    """The connectors of a configuration file.

    Parameters
    ----------
    file : str, optional
        By default that of SPIRA_HOSPITALS.
    hospital_ids : iterable of str
        Which ones; all without any.

    Raises
    ------
    ConfigError
        Names the file and the key that is wrong, and never a value.
    """
    named = file or os.environ.get(VARIABLE, "")
    if not named:
        raise ConfigError(f"{VARIABLE} is not set: name the TOML file that says how to read whom")
    place = Path(named)
    found = of_toml(place, Sources, "configuration of hospitals")
    wanted = [*hospital_ids] or [*found]
    if missing := [one for one in wanted if one not in found]:
        raise ConfigError(f"{place} has no [{missing[0]}]; it has {', '.join(found) or 'nothing'}")
    return [found[one].opened(one, place.parent) for one in wanted]


def _secret(file: Path) -> str:
    try:
        if file.stat().st_mode & stat.S_IRWXO:
            raise ConfigError(f"{file} is open to everybody on this machine; chmod 600 it")
        lines = file.read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"the secret {file} cannot be read ({error.strerror})") from None
    if not lines or not lines[0].strip():
        raise ConfigError(f"the secret {file} is empty; its first line is the header, Bearer …")
    return lines[0].strip()
