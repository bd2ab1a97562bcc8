"""Measure the classifier on the test subjects: as recorded, and with ward noise added.

The second matters as much as the first.  SPIRA's first network was right 98 % of the time as
recorded and 51 % once the controls had ward noise too: it had learned to hear the ward.  So the
same noise is put on everybody, on controls only, and on patients only, and nothing may change much.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from spira_tasks.config import StageConfig
from spira_tasks.contract.record import Outcome
from spira_tasks.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from spira_tasks.artifacts import Directory, Packs
    from spira_tasks.speech.answers import Policy
    from spira_tasks.speech.batches import Batches
    from spira_tasks.speech.classifier import Classifier
    from spira_tasks.speech.metrics import Array
    from spira_tasks.work import Work

WINDOWS_AT_ONCE = 16  # what a network makes of a hundred at once fills gigabytes


@dataclass(frozen=True)
class Inputs:
    recordings: Directory  # recordings.parquet with the column ``split``
    features: Directory  # features.parquet
    ward_noise: Directory  # ward_noise.parquet
    model: Directory  # weights.safetensors, classifier.json


@dataclass(frozen=True)
class Outputs:
    # weights.safetensors, classifier.json with the operating point, policy.json
    classifier: Path
    report: Path  # evaluation.json, predictions.parquet, *.png


class Config(StageConfig):
    """``target_sensitivity``: where to operate; without it, Youden's point (both on validation).

    ``threshold``: operate there, whatever validation says, as published experiments did at 0.5.
    ``max_inconclusive``: most of the validation scores that the model may leave undecided.
    ``averaged_noises``, ``averaged_stripes``: test-time augmentation, the condition ``averaged``.
    It is reported, and never serves.
    """

    target_sensitivity: Annotated[float, Field(gt=0, lt=1)] | None = None
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    max_inconclusive: Annotated[float, Field(ge=0, lt=1)] = 0.1
    n_noises: PositiveInt = 1  # summed onto a recording at once
    n_draws: PositiveInt = 8  # of noise, for each recording of the test
    averaged_noises: NonNegativeInt = 0
    averaged_stripes: NonNegativeInt = 0
    n_resamples: Annotated[int, Field(ge=200)] = 2000
    seed: NonNegativeInt = 0
    plots: bool = True  # of a trial nobody looks at them
    n_explained: Annotated[int, Field(ge=0, le=4)] = 4  # test recordings; with plots
    n_threads: PositiveInt = 2

    @model_validator(mode="after")
    def one_way_to_operate(self) -> Self:
        if self.threshold is not None and self.target_sensitivity is not None:
            raise ValueError("threshold and target_sensitivity exclude each other")
        return self


def run(inputs: Inputs, config: Config, outputs: Outputs, work: Work) -> Outcome:
    import pandas as pd

    from spira_tasks import plots
    from spira_tasks.corpus import load_features, noise_bank
    from spira_tasks.evaluation import metadata, slices
    from spira_tasks.speech import cpu
    from spira_tasks.speech.classifier import SPECIFICATION, WEIGHTS, Classifier
    from spira_tasks.speech.metrics import abstention_band

    cpu.prepare(config.n_threads)
    classifier = Classifier.load(inputs.model.path(WEIGHTS), inputs.model.path(SPECIFICATION))
    recordings = pd.read_parquet(inputs.recordings.path("recordings.parquet"))
    tracks = recordings[(recordings["task"] == "AMBIENT") & (recordings["split"] == "test")]
    table = recordings[recordings["task"] == classifier.spec.task]
    table = table[table["label"].notna()]
    features = pd.read_parquet(inputs.features.path("features.parquet"))
    table = table.merge(features[["record_id", "features"]], on="record_id", validate="1:1")
    bank = noise_bank(inputs.ward_noise, "evaluation", work.blobs, "cpu")

    calibrating = recalibration(classifier, table, config, work.blobs)
    if calibrating["applied"]:
        classifier = classifier.recalibrated(calibrating["shift"], calibrating["scale"])
    scored = table[table["split"].isin(["validation", "test"])]
    predictions = scored[["record_id", "subject_id", "split", "label"]].assign(
        clean=[classifier.score(load_features(one, work.blobs)) for one in scored["features"]],
        **score_with_noise(classifier, scored, bank, config, work.blobs),
        **score_swapped(classifier, scored, tracks, config, work.blobs),
    )
    if config.averaged_noises or config.averaged_stripes:
        scored = scored.assign(clean=predictions["clean"])
        predictions["averaged"] = score_averaged(classifier, scored, bank, config, work.blobs)
    validation = predictions[predictions["split"] == "validation"]
    test = predictions[predictions["split"] == "test"].reset_index(drop=True)
    check_classes(validation, test)
    labels, scores = scores_of(validation)
    threshold = operating_point(labels, scores, config)
    band = abstention_band(labels, scores, threshold, config.max_inconclusive)
    report = measure_conditions(test, threshold, config)
    described = table.set_index("record_id").loc[test["record_id"]].reset_index()
    changed = score_changed(classifier, described, config, work.blobs)
    report["behaviour"] = measure_behaviour(test, changed, threshold, config)
    report["calibration"]["recalibration"] = calibrating
    report["operating_point_from"] = "a setting" if config.threshold is not None else "validation"
    groups = slices.categories(described, recordings)
    report |= measure_slices(test, groups, threshold, config)
    report["metadata_baseline"] = metadata.measure(table, test, config.n_resamples, config.seed)
    report["inconclusive"] = inconclusive(test, threshold, band)
    report["synthetic"] = bool(table.get("x_synthetic", pd.Series(dtype=str)).eq("true").any())

    classifier.with_operating_point(threshold).save(outputs.classifier)
    policy(classifier.spec.task, band).save(outputs.classifier)
    predictions.to_parquet(outputs.report / "predictions.parquet", index=False)
    if config.plots:
        report["explanations"] = explain(
            classifier.with_operating_point(threshold),
            described.assign(clean=test["clean"]),
            outputs.report,
            config,
            work.blobs,
        )
        plots.evaluation(test, report, outputs.report)
    (outputs.report / "evaluation.json").write_text(json.dumps(report, indent=1, sort_keys=True))
    return Outcome(flat(report))


def check_classes(validation: pd.DataFrame, test: pd.DataFrame) -> None:
    for split, part in (("validation", validation), ("test", test)):
        if part["label"].nunique() < 2:
            raise ConfigError(
                f"the {len(part)} {split} recordings hold one class only: nothing can be measured "
                f"on them; ingest more subjects"
            )


def inconclusive(
    test: pd.DataFrame, threshold: float, band: tuple[float, float] | None
) -> dict[str, Any]:
    """What the band around the operating point leaves without an answer."""
    undecided = test["clean"].between(*band) if band else test["clean"].isna()
    wrong = (test["clean"] >= threshold) != (test["label"] == 1)
    return {
        "band": band,
        "n_recordings": int(undecided.sum()),
        "n_errors": int((undecided & wrong).sum()),
    }


def recalibration(
    classifier: Classifier, table: pd.DataFrame, config: Config, blobs: Packs
) -> dict[str, Any]:
    """What the log-odds of windows are to be shifted and scaled by, and whether that helps.

    Where the threshold is fixed, as in published experiments, the scores stay as they are.
    """
    import numpy as np

    from spira_tasks.corpus import load_features
    from spira_tasks.evaluation import calibration
    from spira_tasks.speech import metrics

    table = table[table["split"] == "validation"]
    labels, subjects = table["label"].to_numpy(float), table["subject_id"].to_numpy(str)
    if config.threshold is not None or len(np.unique(labels)) < 2:
        return {"applied": False}
    logits = [
        classifier.window_logits(load_features(digest, blobs)).numpy().astype(float)
        for digest in table["features"]
    ]
    weights = metrics.subject_resamples(subjects, config.n_resamples, config.seed)
    return calibration.recalibrate(logits, labels, subjects, weights)


def score_with_noise(
    classifier: Classifier, table: pd.DataFrame, bank: list[Tensor], config: Config, blobs: Packs
) -> dict[str, Array]:
    """Probability of each recording with ward noise of the evaluation pool summed onto it.

    The noise belongs to the recording: the same in every evaluation, whatever its label.  Test
    recordings have several draws, ``noise``, ``noise_2``, …; those of validation the first one.
    """
    import numpy as np

    from spira_tasks.corpus import examples
    from spira_tasks.progress import progress
    from spira_tasks.speech.augmentation import NoisePolicy
    from spira_tasks.speech.batches import Batches

    scores = np.full((config.n_draws, len(table)), np.nan)
    which = scores.copy()  # of the noises; where several are summed, the first
    if bank:
        policy = NoisePolicy(config.n_noises, config.n_noises)
        recordings = examples(table, blobs, "cpu")
        batches = Batches(
            recordings, classifier.extractor, bank, policy, windows="all", seed=config.seed
        )
        for place in progress(range(len(table)), "score with ward noise", total=len(table)):
            n = config.n_draws if table["split"].iloc[place] == "test" else 1
            scores[:n, place] = drawn(classifier, batches, [place] * n)
            which[:n, place] = [batches.insertions(place, draw)[0].noise for draw in range(n)]
    return named("noise", scores) | named("ward_noise", which)


def score_swapped(
    classifier: Classifier, table: pd.DataFrame, tracks: pd.DataFrame, config: Config, blobs: Packs
) -> dict[str, Array]:
    """Probability of each test recording with the ambient noise of people of the other class.

    ``tracks`` are the recordings of rooms that came with the test subjects, added as loud as they
    are.  Where a class has fewer than two, nothing is scored: one room says nothing of others.
    ``room`` says which one each draw has.
    """
    import numpy as np

    from spira_tasks.corpus import examples
    from spira_tasks.progress import progress
    from spira_tasks.speech.augmentation import NoisePolicy, recording_rng, to_float
    from spira_tasks.speech.batches import Batches
    from spira_tasks.speech.examples import Example

    scores = np.full((config.n_draws, len(table)), np.nan)
    which = scores.copy()  # of the rooms
    rooms = {label: examples(one, blobs, "cpu") for label, one in tracks.groupby("label")}
    if min(len(rooms.get(label, ())) for label in (0, 1)) < 2:
        return named("swapped", scores) | named("room", which)
    recordings = examples(table, blobs, "cpu", most_bytes=0)  # each is loaded once
    places = np.flatnonzero(table["split"] == "test").tolist()
    for place in progress(places, "score in other rooms", total=len(places)):
        one = recordings[place]
        voice, others, in_rooms = to_float(one.pcm16), rooms[1 - int(one.label)], []
        for draw in range(config.n_draws):
            rng = recording_rng(config.seed, one.record_id, 3, draw)
            number = int(rng.integers(len(others)))
            which[draw, place] = 2 * number + int(one.label)  # no room is of both classes
            room = to_float(others[number].pcm16)
            room = room.repeat(1 + -(-len(voice) // len(room)))
            start = int(rng.integers(len(room) - len(voice), endpoint=True))
            heard = voice + room[start : start + len(voice)]
            in_rooms.append(Example(one.record_id, heard, one.label))
        batches = Batches(
            in_rooms, classifier.extractor, [], NoisePolicy(), windows="all", seed=config.seed
        )
        scores[:, place] = drawn(classifier, batches, list(range(config.n_draws)))
    return named("swapped", scores) | named("room", which)


def score_changed(
    classifier: Classifier, table: pd.DataFrame, config: Config, blobs: Packs
) -> dict[str, Array]:
    """Probability of each recording under changes that say nothing of the illness."""
    import numpy as np
    import torch

    from spira_tasks.corpus import examples
    from spira_tasks.evaluation.behaviour import TRANSFORMS
    from spira_tasks.progress import progress
    from spira_tasks.speech.augmentation import NoisePolicy, to_float
    from spira_tasks.speech.batches import Batches
    from spira_tasks.speech.examples import Example

    recordings = examples(table, blobs, "cpu", most_bytes=0)  # each is loaded once
    scores = np.empty((len(TRANSFORMS), len(table)))
    for place, one in enumerate(progress(recordings, "score changed sound", total=len(table))):
        waveform = to_float(one.pcm16).numpy()
        changed = [
            Example(one.record_id, torch.from_numpy(change(waveform)), one.label)
            for change in TRANSFORMS.values()
        ]
        batches = Batches(
            changed, classifier.extractor, [], NoisePolicy(), windows="all", seed=config.seed
        )
        scores[:, place] = drawn(classifier, batches, list(range(len(changed))))
    return dict(zip(TRANSFORMS, scores, strict=True))


def drawn(classifier: Classifier, batches: Batches, places: list[int]) -> Array:
    """Probability of each of some recordings; the same one twice is two draws of its noise."""
    import numpy as np
    import torch

    batch = batches.make(places, range(len(places)))
    parts = torch.split(batch.features, WINDOWS_AT_ONCE)
    scores = torch.cat([classifier.window_scores(part) for part in parts]).numpy().astype(float)
    which = batch.recordings.numpy()
    return np.bincount(which, scores) / np.bincount(which)


def named(name: str, scores: Array) -> dict[str, Array]:
    """(draw, recording) scores as columns: the first has the name, the others a number too."""
    return {name if not n else f"{name}_{n + 1}": scores[n] for n in range(len(scores))}


def draws_of(name: str, table: pd.DataFrame) -> Array | None:
    """The (draw, recording) scores that ``named`` made columns; None where nothing was scored."""
    import numpy as np

    columns = [one for one in table if one == name or one.startswith(f"{name}_")]
    scores = table[columns].to_numpy(float).T
    return None if not columns or np.isnan(scores).any() else scores


def score_averaged(
    classifier: Classifier, table: pd.DataFrame, bank: list[Tensor], config: Config, blobs: Packs
) -> list[float]:
    """Mean probability of each recording as it is, with ward noise, and behind stripes.

    v1b's test-time augmentation (``num_test_additive_noise``, ``num_test_specaug``).  What is drawn
    belongs to the recording, whatever its label.  Without ward noise those terms are left out.
    """
    import numpy as np
    import torch

    from spira_tasks.corpus import examples, load_features
    from spira_tasks.progress import progress
    from spira_tasks.speech.augmentation import NoisePolicy, recording_rng
    from spira_tasks.speech.examples import noisy
    from spira_tasks.speech.spec_augment import PUBLISHED, hide

    means = []
    recordings = zip(examples(table, blobs, "cpu"), table["features"], table["clean"], strict=True)
    for example, digest, clean in progress(recordings, "score averaged", total=len(table)):
        scores = [float(clean)]
        for number in range(config.averaged_noises if bank else 0):
            waveform = noisy(example, bank, NoisePolicy(), config.seed, 1, number)
            scores.append(classifier.probability(waveform))
        if config.averaged_stripes:
            features = load_features(digest, blobs)
            n_windows, n_frames, n_bins = features.shape
            for number in range(config.averaged_stripes):
                rng = recording_rng(config.seed, example.record_id, 2, number)
                drawn = PUBLISHED.draw((n_frames, n_bins), rng, n_windows)
                stripes = [torch.from_numpy(bounds) for bounds in drawn]
                hidden = hide(features, stripes, classifier.standardize.mean)
                scores.append(classifier.score(hidden))
        means.append(float(np.mean(scores)))
    return means


def explain(
    classifier: Classifier, test: pd.DataFrame, folder: Path, config: Config, blobs: Packs
) -> dict[str, Any]:
    """Explain the answers to a few test recordings; write explanations.parquet for the plot.

    Of a feature that is not spectral nothing is explained.
    """
    from spira_tasks.corpus import load_features
    from spira_tasks.evaluation import explanations
    from spira_tasks.speech.audio import read_pcm16

    if classifier.extractor.spectral is None or not config.n_explained:
        return {}
    labels, scores = test["label"].to_numpy(float), test["clean"].to_numpy(float)
    threshold = classifier.spec.operating_point
    places = explanations.chosen(labels, scores, threshold)[: config.n_explained]
    recordings = [
        explanations.Recording(load_features(digest, blobs), read_pcm16(blobs.read(waveform)))
        for digest, waveform in test.loc[places, ["features", "waveform"]].itertuples(index=False)
    ]
    cells, found = explanations.explain(classifier, recordings, config.seed)
    for row, place in zip(found["recordings"], places, strict=True):
        row |= {"label": int(labels[place]), "is_called": bool(scores[place] >= threshold)}
    cells.to_parquet(folder / "explanations.parquet", index=False)
    return found


def scores_of(validation: pd.DataFrame) -> tuple[Array, Array]:
    """Labels and probabilities of the validation subjects, as recorded and in ward noise."""
    import pandas as pd

    scores = pd.concat([validation["clean"], validation["noise"].dropna()])
    return validation["label"].loc[scores.index].to_numpy(float), scores.to_numpy(float)


def policy(task: str, band: tuple[float, float] | None) -> Policy:
    """The limits of recordings of a task, beyond which the gates refuse them too."""
    from expectations.limits import AUDIO
    from spira_tasks.speech.answers import Limit, Policy

    about = [one for one in AUDIO if not one.tasks or task in one.tasks]
    limits = tuple(Limit(one.column, one.limit, one.typical) for one in about)
    longest = max(one.limit[1] or 0.0 for one in limits if one.measure == "duration_seconds")
    return Policy(longest, limits, band)


def operating_point(labels: Array, probabilities: Array, config: Config) -> float:
    """The threshold that serves the validation subjects best."""
    from spira_tasks.speech.metrics import sensitivity_threshold, youden_threshold

    if config.threshold is not None:
        return config.threshold
    if config.target_sensitivity is None:
        return youden_threshold(labels, probabilities)
    return sensitivity_threshold(labels, probabilities, config.target_sensitivity)


def measure_conditions(test: pd.DataFrame, threshold: float, config: Config) -> dict[str, Any]:
    """Every metric with its interval, and what each way of adding noise takes away."""
    import numpy as np

    from spira_tasks.evaluation import calibration, counterfactuals
    from spira_tasks.speech import metrics

    labels = test["label"].to_numpy(float)
    subjects = test["subject_id"].to_numpy(str)
    weights = metrics.subject_resamples(subjects, config.n_resamples, config.seed)
    clean, patient = test["clean"].to_numpy(float), labels == 1
    noise, swapped = draws_of("noise", test), draws_of("swapped", test)
    cells = {} if noise is None else counterfactuals.cells(labels, clean, noise, swapped)
    probabilities = {"clean": clean, **cells}
    if "averaged" in test:
        probabilities["averaged"] = test["averaged"].to_numpy(float)
    samples = {
        condition: metrics.measure(labels, scores, threshold, weights)
        for condition, scores in probabilities.items()
    }
    called = clean >= threshold
    n_patients = int(test[patient]["subject_id"].nunique())
    n_controls = int(test[~patient]["subject_id"].nunique())
    conditions = {
        condition: {
            name: asdict(interval)
            for name, interval in metrics.estimates(sample, n_patients, n_controls).items()
        }
        for condition, sample in samples.items()
    }
    return {
        "n_recordings": len(test),
        "n_subjects": int(test["subject_id"].nunique()),
        "n_patients": n_patients,
        "n_controls": n_controls,
        "operating_point": threshold,
        "confusion": {
            "true_positives": int((called & patient).sum()),
            "false_positives": int((called & ~patient).sum()),
            "true_negatives": int((~called & ~patient).sum()),
            "false_negatives": int((~called & patient).sum()),
        },
        "expected_calibration_error": metrics.expected_calibration_error(labels, clean),
        "brier_score": float(np.mean((clean - labels) ** 2)),
        "calibration": calibration.measure(labels, clean, subjects, weights),
        "conditions": conditions,
        "predictive_values": calibration.predictive_values(
            conditions["clean"]["sensitivity"], conditions["clean"]["specificity"]
        ),
        "net_benefit": calibration.net_benefit(labels, clean, weights),
        "n_draws": config.n_draws,
        **counterfactuals.measure(
            labels,
            clean,
            cells,
            threshold,
            weights=weights,
            n_people=(n_controls, n_patients),
            noises=draws_of("ward_noise", test),
            rooms=draws_of("room", test),
            seed=config.seed,
        ),
    }


def measure_behaviour(
    test: pd.DataFrame, changed: Mapping[str, Array], threshold: float, config: Config
) -> dict[str, Any]:
    """How often the answers change with the sound."""
    from spira_tasks.evaluation import behaviour
    from spira_tasks.speech import metrics

    labels, subjects = test["label"].to_numpy(float), test["subject_id"]
    return behaviour.measure(
        labels,
        test["clean"].to_numpy(float),
        changed,
        threshold,
        weights=metrics.subject_resamples(subjects.to_numpy(str), config.n_resamples, config.seed),
        n_people=(subjects[labels == 0].nunique(), subjects[labels == 1].nunique()),
    )


def measure_slices(
    test: pd.DataFrame, groups: pd.DataFrame, threshold: float, config: Config
) -> dict[str, Any]:
    """How well it does in groups of the test people; ``test`` has their scores as recorded."""
    from spira_tasks.evaluation import slices
    from spira_tasks.speech import metrics

    subjects = test["subject_id"]
    return slices.measure(
        groups,
        subjects,
        test["label"].to_numpy(float),
        test["clean"].to_numpy(float),
        threshold=threshold,
        weights=metrics.subject_resamples(subjects.to_numpy(str), config.n_resamples, config.seed),
    )


def flat(report: dict[str, Any]) -> dict[str, float]:
    """The report as metrics: the clean ones under their own names, the others with a suffix."""
    names = (
        *("n_recordings", "n_subjects", "n_patients", "n_controls"),
        *("operating_point", "expected_calibration_error", "brier_score"),
    )
    numbers: dict[str, float] = {name: report[name] for name in names} | report["confusion"]
    for condition, estimates in report["conditions"].items():
        suffix = "" if condition == "clean" else f"_{condition}"
        for name, interval in estimates.items():
            for end, part in (("", "value"), ("_low", "low"), ("_high", "high")):
                numbers[f"{name}{suffix}{end}"] = interval[part]
    return numbers
