"""The quarantine table: one row for each refused record, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

FILE = "quarantine.parquet"
COLUMNS = (
    *("row", "record_id", "reason", "detail", "hospital_id", "task"),
    *("subject_id", "suite", "suite_digest"),
)


@dataclass(frozen=True)
class Refusal:
    """Why a row is refused."""

    reason: str  # stable code
    detail: str  # what is wrong with the column; never a value
    suite: str = ""  # that refuses it; empty for ingest
    suite_digest: str = ""
    unnamed: bool = False  # without record and site: the fault is that they may name a person
    forgotten: bool = False  # without the pseudonym too: the person was erased


def table(rows: pd.DataFrame, refusals: Mapping[int, Refusal]) -> pd.DataFrame:
    """The quarantine table.

    Names of records, sites and tasks are kept only where they surely hold nothing else; the
    pseudonym is kept so that an erasure finds the row.

    Parameters
    ----------
    rows : DataFrame
        The refused rows, in the order of ``refusals``; columns that it lacks stay empty.
    refusals : mapping of int to Refusal
        Number of a row in the table that came, from 1, to why it is refused.
    """
    import pandas as pd

    from spira_tasks.intake import record_contract as contract

    key = "record_id" if "record_id" in rows or "noise_id" not in rows else "noise_id"
    names = (key, "hospital_id", "task", "subject_id")
    found = rows.reindex(columns=[*names]).astype("str").set_axis(list(refusals), axis="index")
    found = found.rename(columns={key: "record_id"})
    about = [field.name for field in fields(Refusal)]
    why = pd.DataFrame(list(refusals.values()), index=found.index, columns=about)
    unnamed, forgotten = why["unnamed"].astype(bool), why["forgotten"].astype(bool)

    def where(column: pd.Series, pattern: str) -> pd.Series:
        return column.where(column.str.fullmatch(pattern).fillna(False).astype(bool))

    refused = found.assign(
        row=found.index,
        record_id=where(found["record_id"], contract.NAME.pattern).where(~unnamed),
        hospital_id=found["hospital_id"].where(~unnamed),
        subject_id=where(found["subject_id"], contract.HEX64.pattern).where(~forgotten),
        task=found["task"].where(found["task"].isin(contract.COLUMNS["task"].values)),
        **{name: why[name] for name in ("reason", "detail", "suite", "suite_digest")},
    )
    types = dict.fromkeys(COLUMNS, "str") | {"row": "int64"}
    return refused[[*COLUMNS]].astype(types).reset_index(drop=True)
