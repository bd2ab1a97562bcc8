"""S3: what must hold of a table that a model is trained and tested on.

The classes must differ in little but the voice: not in device, site, channel, prompt or age.  Each
task is checked by itself, and the worst of them counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import BatchExpectation, Expectation
from great_expectations.expectations.row_conditions import Column

from expectations import limits
from expectations.notes import QUARANTINE, note
from expectations.suites import common
from expectations.suites.custom import ExpectNoNearDuplicates, ExpectOneValuePerGroup, TableMetric
from spira_tasks.evaluation.association import Found, of_task
from spira_tasks.intake.record_contract import COLUMNS

VERSION = "2026-11-29.1"

SPLITS = ("train", "validation", "test")

# How a recording was made, and where: blocks where it predicts the label.
CHANNEL = (
    *("unit", "hospital_id", "collector_pid", "app", "app_version", "prompt_version"),
    *("device_model", "os", "capture_ns", "capture_agc", "capture_aec"),
    *("codec_original", "codec", "native_sample_rate_hz"),
)
# Who is recorded, and behind what: the same illness may well go with it.
PERSON = ("sex", "age", "mask_type")
# What the room sounds like before anybody speaks.
AMBIENT = ("level_dbfs", "bandwidth_hz")
ERASED = "erased on their demand, and here again"
LEARNED = "goes with the label: a network may learn it instead of the illness"
# Patients' voice notes come without what an app writes down: an empty field shows the channel too.
EMPTY_TOO = "; an empty field counts as a value of its own"


def template(recordings: pd.DataFrame) -> pd.DataFrame:
    """A table to show the suite for: with the columns that the gate adds."""
    return recordings.assign(erased=False, trained=(recordings["task"] == "SENTENCE").astype(int))


def suite(frame: pd.DataFrame) -> gx.ExpectationSuite:
    """The suite for a recordings table with ``split``; the gate adds ``erased`` and ``trained``."""
    present = common.filled(frame)
    n_subjects = int(frame.loc[frame["trained"] == 1, "subject_id"].nunique())
    heard = "heard in training is recognised in testing"
    expectations = [
        common.not_empty(),
        common.not_null("split", "every recording has a side"),
        common.in_set("split", "there are three sides", value_set=list(SPLITS)),
        common.unique("record_id", "a row too many leaks"),
        ExpectOneValuePerGroup(
            column_A="subject_id", column_B="split", meta=note(f"a voice {heard}")
        ),
        ExpectOneValuePerGroup(
            column_A="audio_sha256", column_B="split", meta=note(f"a recording {heard}")
        ),
        ExpectNoNearDuplicates(
            column_list=["fingerprint", "duration_seconds", "split"],
            min_cosine=limits.SAME_RECORDING,
            row_condition=Column("task").is_in([*limits.SPOKEN]),
            meta=note(f"a copy of a recording {heard}"),
        ),
        common.no_trials(),
        common.in_set("label", "insufficiency, or none", action=QUARANTINE, value_set=[0, 1]),
        common.in_set("erased", ERASED, limits.PRIVACY, firm=True, value_set=[False]),
        *_classes(n_subjects),
    ]
    if "consent_status" in present:
        expectations.append(common.consent_granted())
    expectations += [
        common.n_values(column, why, severity=severity, max_value=1)
        for column, severity, why in (
            ("label_version", "critical", "labels of two versions follow two definitions"),
            ("consent_version", "warning", "two forms of consent may permit two different uses"),
            ("consent_scope", "warning", "consents of two scopes may permit two different uses"),
        )
        if column in present
    ]
    expectations += _confounds(frame, present)
    return gx.ExpectationSuite(
        name="training_set", expectations=expectations, meta={"version": VERSION}
    )


def _confounds(frame: pd.DataFrame, present: set[str]) -> list[Expectation]:
    """Device, site, channel, prompt, room, age and sex: weak beside the label, or the run ends.

    In every task on its own, by the worst of them: so there is one check a column, not one a task.
    """
    expectations: list[Expectation] = []

    def weak(column: str, strong: bool, task: str = "") -> None:
        """Warn beyond the weak bound; where ``strong``, block beyond the strong bound."""
        is_channel = column in CHANNEL
        about = {"column": column, "task": task, "missing_is_a_level": is_channel}
        why = LEARNED + EMPTY_TOO if is_channel else LEARNED
        bounds = [("weak", limits.WEAK_ASSOCIATION, "warning")]
        bounds += [("strong", limits.STRONG_ASSOCIATION, "critical")] if strong else []
        for aspect, bound, severity in bounds:
            given = {"severity": severity, "meta": note(why, aspect=f"{task} {aspect}".strip())}
            expectations.append(
                ExpectAssociationWithLabelToBeWeak(**about, max_value=bound, **given)
            )

    for column in sorted(present & {*CHANNEL, *PERSON}):
        weak(column, strong=column in CHANNEL)
    why = f"many people with one value of it are of one class: {LEARNED}{EMPTY_TOO}"
    most = {"missing_is_a_level": True, "max_value": limits.ONE_CLASS_SHARE}
    expectations += [
        ExpectNoLevelOfOneClass(column=column, **most, meta=note(why))
        for column in sorted(present & set(CHANNEL))
    ]
    if (frame["task"] == "AMBIENT").any():
        for column in sorted(present & set(AMBIENT)):
            weak(column, strong=True, task="AMBIENT")
    expectations += [
        ExpectClassesToBeAlike(
            column=column,
            max_value=bound,
            severity=severity,
            meta=note("the classes differ in it: " + LEARNED, aspect=aspect),
        )
        for column in sorted(present & {"age", "sex"})
        for bound, severity, aspect in (
            (limits.SMALL_DIFFERENCE, "warning", "alike"),
            (limits.LARGE_DIFFERENCE, "critical", "limit"),
        )
    ]
    if "hospital_id" in present:
        meta = note("sites with too few people of one class say nothing of that site")
        about = {"column": "hospital_id", "max_value": 0, "severity": "warning"}
        expectations.append(ExpectBothClassesInEveryLevel(**about, meta=meta))
    return expectations


def _classes(n_subjects: int) -> list[Expectation]:
    """Enough people of both classes, on every side, among those whom the model is to hear."""
    trained = Column("trained") == 1
    slack = 1.96 * math.sqrt(0.25 / max(n_subjects, 1))  # half a 95 % interval around one half

    def share(bounds: tuple[float, float], severity: str, aspect: str) -> Expectation:
        return gxe.ExpectColumnMeanToBeBetween(
            column="label",
            min_value=max(bounds[0] - slack, 0.0),
            max_value=min(bounds[1] + slack, 1.0),
            severity=severity,
            row_condition=trained,
            meta=note("share of patients; bounds widened to what few people allow", aspect=aspect),
        )

    expectations: list[Expectation] = []
    if n_subjects:  # of nobody there is no share; the numbers of people block
        expectations += [
            share(limits.CLASS_SHARE_LIMIT, "critical", "limit"),
            share(limits.CLASS_SHARE_TYPICAL, "warning", "typical"),
        ]
    for label, name in ((1, "patients"), (0, "controls")):
        expectations.append(
            common.n_values(
                "subject_id",
                "with fewer, results are provisional",
                aspect=name,
                severity="warning",
                min_value=limits.MIN_SUBJECTS_PER_CLASS,
                row_condition=(Column("label") == label) & trained,
            )
        )
        expectations += [
            common.n_values(
                "subject_id",
                "both classes are needed on every side",
                aspect=f"{name} in {split}",
                min_value=1,
                row_condition=(Column("label") == label) & (Column("split") == split) & trained,
            )
            for split in SPLITS
        ]
    return expectations


class PeopleByClass(TableMetric):
    """All statistics of ``spira_tasks.evaluation.association`` for one column, by the task."""

    metric_name = "table.people_by_class"
    value_keys = ("column", "task", "missing_is_a_level")

    @staticmethod
    def of(
        frame: pd.DataFrame, *, column: str, task: str, missing_is_a_level: bool
    ) -> dict[str, Found]:
        if task:
            frame = frame[frame["task"] == task]
        needed = ["label"] if missing_is_a_level else ["label", column]
        return {
            str(each): of_task(rows[column], rows["label"].astype(float) == 1, rows["subject_id"])
            for each, rows in frame.dropna(subset=needed).groupby("task", dropna=False)
        }


class _AboutPeople(BatchExpectation):
    """The common part: one statistic of a column, and the most that it may be in any task."""

    column: str
    task: str = ""  # the recordings that the column is about; empty for each task on its own
    missing_is_a_level: bool = False  # where an empty cell may tell the class as any value may
    max_value: float

    statistic: ClassVar[str]
    metric_dependencies: ClassVar[tuple[str, ...]] = (PeopleByClass.metric_name,)
    success_keys: ClassVar[tuple[str, ...]] = (*PeopleByClass.value_keys, "max_value")

    def _validate(self, metrics: Mapping[str, Any], **_: object) -> dict[str, Any]:
        found: Mapping[str, Found] = metrics[PeopleByClass.metric_name]
        values = [(task, value) for task, of in found.items() for value in of[self.statistic]]
        task, worst = max(
            values,
            key=lambda of: of[1]["value"] - self._allowed(of[1]),
            default=("", {"value": 0.0, "n": 0}),  # of an empty table
        )
        details: dict[str, Any] = {"max_value": self._allowed(worst), "n": worst["n"]}
        if task in COLUMNS["task"].values:  # any other is a cell of the table
            details["task"] = task
        return {
            "success": bool(worst["value"] <= details["max_value"]),
            "result": {"observed_value": worst["value"], "details": details},
        }

    def _allowed(self, value: Mapping[str, float]) -> float:
        return max(self.max_value, value.get("chance", 0.0))


class ExpectAssociationWithLabelToBeWeak(_AboutPeople):
    """Expect ``column`` to say little about the label in every task: Cramér's V, by people.

    ``max_value`` is raised to what chance alone would give with so few people.
    """

    statistic: ClassVar[str] = "association"


class ExpectNoLevelOfOneClass(_AboutPeople):
    """Expect no level of ``column`` with one class only to hold many of the people of a task.

    ``max_value`` is the share of the people.  Sets of levels are levels here.  A level counts
    only where chance would hardly leave so many people without the other class.
    """

    statistic: ClassVar[str] = "one_class"


class ExpectClassesToBeAlike(_AboutPeople):
    """Expect the classes to differ little in ``column`` in every task: standardised difference.

    Of means of a number, in standard deviations; of categories, the largest over their shares.
    ``max_value`` is raised to what chance alone would give with so few people.
    """

    statistic: ClassVar[str] = "difference"


class ExpectBothClassesInEveryLevel(_AboutPeople):
    """Expect every level of ``column`` with many people of a task to have enough of both classes.

    Enough are 10, or what one balanced level of this size in a thousand falls below.  ``max_value``
    is how many levels may have too few.
    """

    statistic: ClassVar[str] = "unbalanced"
