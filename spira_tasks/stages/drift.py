"""Gate: say how the people who are new differ from those that the champion learned from.

The recordings are handed on unchanged, and nothing is ever blocked: another population is the
reason to train again, and to look at the results by site and age.  One person counts once.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import NonNegativeInt, PositiveInt

from spira_tasks.config import Fraction, StageConfig
from spira_tasks.contract import Outcome, Verdict
from spira_tasks.errors import ArtifactCorrupt, ConfigError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from spira_tasks.artifacts import Directory
    from spira_tasks.work import Record, Work

EFFECT = True  # it looks at the registry: which model is champion
AUDIT = "gate"

NUMBERS = (
    *("age", "spo2", "heart_rate", "resp_rate", "temp", "duration_seconds", "level_dbfs", "peak"),
    *("snr_db", "bandwidth_hz", "speech_fraction", "syllabic_modulation_db"),
)
CATEGORIES = (
    *("label", "sex", "mask_type", "unit", "hospital_id", "on_oxygen", "ri_cause"),
    *("app", "app_version", "prompt_version", "device_model", "os"),
    *("capture_ns", "capture_agc", "capture_aec", "codec_original", "native_sample_rate_hz"),
)
COLUMNS = {
    "feature": "str",
    "kind": "str",  # number, category
    "statistic": "float64",  # Kolmogorov-Smirnov's D, population stability index
    "p": "float64",
    "significant": "bool",  # at a false discovery rate of 5 % over all numbers
    "effect": "float64",  # Wasserstein distance in standard deviations, population stability index
    "null99": "float64",  # the index that one of 100 samples without any drift exceeds
    "n_new": "int64",
    "n_reference": "int64",
    "n_new_categories": "int64",
    "quarters": "object",  # people between the quartiles of the reference, in percent
    "compared": "bool",  # whether there were people enough
}
SMALLEST_CELL = 5  # of people; a smaller one is not told


@dataclass(frozen=True)
class Inputs:
    recordings: Directory  # recordings.parquet
    features: Directory  # features.parquet: which of the recordings are learned from


@dataclass(frozen=True)
class Outputs:
    recordings: Path  # the input itself
    report: Path  # drift.parquet, one row a feature; drift.json, with the verdicts


class Config(StageConfig):
    """``min_people``: below, on either side, a feature is not compared."""

    min_people: PositiveInt = 30
    false_discovery_rate: Fraction = 0.05
    n_resamples: PositiveInt = 1000
    seed: NonNegativeInt = 0


def run(inputs: Inputs, config: Config, outputs: Outputs, work: Work) -> Outcome:
    from spira_tasks.tracking import Tracker

    tracker = Tracker(work.tracking_uri)
    champion = tracker.champion()
    reference = tracker.artifacts_of(champion).get("recordings", "") if champion else ""
    first_time: list[bool] = []

    def make() -> Record:
        first_time.append(True)
        found = compared(reference, inputs, config, work) if champion else {"state": "no champion"}
        return found | judged(found)

    parts = {
        "recordings": inputs.recordings.digest,
        "features": inputs.features.digest,
        "reference": reference,
        "config": config.model_dump(),
    }
    found = work.remember(parts, make)  # a pure function of two sets: never made twice
    table = table_of(found)
    verdicts = (enough(found, config), *(Verdict(**verdict) for verdict in found["verdicts"]))

    for name in inputs.recordings.names:
        (outputs.recordings / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(inputs.recordings.path(name), outputs.recordings / name)
    table.to_parquet(outputs.report / "drift.parquet", index=False)
    content = {
        "state": found["state"],
        "champion": champion.version if champion else None,
        "reference": reference,
        **found["suite"],
        "features": found.get("rows", []),
        "verdicts": [asdict(verdict) for verdict in verdicts],
    }
    (outputs.report / "drift.json").write_text(json.dumps(content, indent=1, sort_keys=True))
    n_by_verdict = Counter(verdict.verdict for verdict in verdicts)
    return Outcome(
        {
            "n_features": len(table),
            "n_compared": int(table["compared"].sum()),
            "n_new_people": found.get("n_new", 0),
            "n_warnings": n_by_verdict["warn"],
            "n_blocked": n_by_verdict["block"],
        },
        verdicts,
        changed=bool(first_time),
    )


def enough(found: Mapping[str, Any], config: Config) -> Verdict:
    """Whether anything could be compared, and if not, why."""
    n = found.get("n_new", 0)
    verdict, reason = {
        "no champion": ("pass", "there is no champion yet: nothing to compare with"),
        "no reference": (
            "warn",
            "the champion's training set is not in the store, or was erased: train and promote "
            "again to have a reference",
        ),
        "few": (
            "pass",
            f"{n} people are not in the champion's training set; fewer than {config.min_people} "
            "tell nothing",
        ),
        "compared": ("pass", f"{n} people are not in the champion's training set"),
    }[found["state"]]
    return Verdict(
        "drift_reference",
        verdict,  # type: ignore[arg-type]
        n=n,
        reason=reason,
        severity="warning",
        suite="drift",
    )


def judged(found: Record) -> Record:
    """What the suite says of the comparison."""
    from expectations import drift
    from spira_tasks import quality

    table = table_of(found)
    report = quality.check(table, drift.suite(table))
    return {
        "suite": {"suite": report.suite, "version": report.version, "digest": report.digest},
        "verdicts": [asdict(verdict) for verdict in report.verdicts],
    }


def table_of(found: Record) -> pd.DataFrame:
    """One row a feature."""
    import pandas as pd

    return pd.DataFrame(found.get("rows", []), columns=[*COLUMNS]).astype(COLUMNS)


def compared(reference: str, inputs: Inputs, config: Config, work: Work) -> Record:
    """New people beside those of the reference: plain JSON, no value of anybody in it."""
    import pandas as pd

    from spira_tasks.governance import inventory

    try:
        old = inventory.read_table(work.store, reference, "recordings.parquet")
    except (ConfigError, ArtifactCorrupt):  # never stored here, or past its retention
        return {"state": "no reference"}
    recordings = pd.read_parquet(inputs.recordings.path("recordings.parquet"))
    learned_from = pd.read_parquet(inputs.features.path("features.parquet"))["record_id"]
    tasks = recordings["task"][recordings["record_id"].isin(learned_from)].unique()
    new = recordings[~recordings["subject_id"].isin(old["subject_id"])]
    new, old = new[new["task"].isin(tasks)], old[old["task"].isin(tasks)]
    rows = [number_row(new, old, name, config) for name in NUMBERS if has(name, new, old)]
    discover(rows, config.false_discovery_rate)
    rows += [category_row(new, old, name, config) for name in CATEGORIES if has(name, new, old)]
    is_compared = any(row["compared"] for row in rows)
    return {
        "state": "compared" if is_compared else "few",
        "n_new": int(new["subject_id"].nunique()),
        "rows": rows,
    }


def has(name: str, new: pd.DataFrame, old: pd.DataFrame) -> bool:
    return name in new and name in old and bool(new[name].notna().any() or old[name].notna().any())


def number_row(new: pd.DataFrame, old: pd.DataFrame, name: str, config: Config) -> Record:
    """A number of every person: the mean of their recordings."""
    import numpy as np
    from scipy.stats import ks_2samp, wasserstein_distance

    now, before = (
        table.assign(value=table[name].astype("float64"))
        .groupby("subject_id")["value"]
        .mean()
        .dropna()
        .to_numpy()
        for table in (new, old)
    )
    row = empty_row(name, "number", len(now), len(before), config)
    if not row["compared"]:
        return row
    test = ks_2samp(now, before, method="asymp")
    spread = before.std()
    apart = wasserstein_distance(now, before)
    counts = np.bincount(
        np.searchsorted(np.quantile(before, [0.25, 0.5, 0.75]), now, side="right"), minlength=4
    )
    return row | {
        "statistic": rounded(test.statistic),
        "p": rounded(test.pvalue),
        "effect": rounded(apart / spread if spread > 0 else 10.0 * (apart > 0)),
        "quarters": told(counts),
    }


def told(counts: np.ndarray) -> str:
    """Shares in percent, ``"23,31,25,21"``; empty where a cell is so small that it is not told."""
    if min(counts) < SMALLEST_CELL:
        return ""
    return ",".join(str(round(100 * count / counts.sum())) for count in counts)


def category_row(new: pd.DataFrame, old: pd.DataFrame, name: str, config: Config) -> Record:
    """A category of every person: that of their first recording."""
    import numpy as np

    now, before = (
        table.drop_duplicates("subject_id")[name].dropna().astype("str") for table in (new, old)
    )
    row = empty_row(name, "category", len(now), len(before), config)
    row["n_new_categories"] = len(set(now) - set(before))
    if not row["compared"]:
        return row
    names = sorted({*now, *before})
    here, there = (
        each.value_counts().reindex(names, fill_value=0).to_numpy() for each in (now, before)
    )
    index = float(stability(here, there))
    rng = np.random.default_rng([config.seed, zlib.crc32(name.encode())])
    pooled = (here + there) / (here + there).sum()
    chance = stability(
        rng.multinomial(len(now), pooled, config.n_resamples),
        rng.multinomial(len(before), pooled, config.n_resamples),
    )
    return row | {
        "statistic": rounded(index),
        "p": rounded((1 + (chance >= index).sum()) / (1 + len(chance))),
        "effect": rounded(index),
        "null99": rounded(np.quantile(chance, 0.99)),
    }


def stability(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Population stability index of (…, category) counts; half a person is added to every cell."""
    import numpy as np

    p, q = ((counts + 0.5) for counts in (new, old))
    p, q = p / p.sum(axis=-1, keepdims=True), q / q.sum(axis=-1, keepdims=True)
    return np.asarray(((p - q) * np.log(p / q)).sum(axis=-1))


def discover(rows: list[Record], rate: float) -> None:
    """Mark what is significant at a false discovery rate (Benjamini and Hochberg, 1995)."""
    ordered = sorted((row for row in rows if row["compared"]), key=lambda row: row["p"])
    passed = [k for k, row in enumerate(ordered, 1) if row["p"] <= rate * k / len(ordered)]
    for row in ordered[: max(passed, default=0)]:
        row["significant"] = True


def empty_row(name: str, kind: str, n_new: int, n_reference: int, config: Config) -> Record:
    return {
        "feature": name,
        "kind": kind,
        "statistic": None,
        "p": None,
        "significant": False,
        "effect": None,
        "null99": None,
        "n_new": n_new,
        "n_reference": n_reference,
        "n_new_categories": 0,
        "quarters": "",
        "compared": min(n_new, n_reference) >= config.min_people,
    }


def rounded(number: float) -> float:
    """To six digits: beyond, processors differ."""
    return float(f"{number:.6g}")
