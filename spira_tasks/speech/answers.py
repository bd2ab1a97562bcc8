"""What a model says of one recording: an answer, or why there is none.

The limits and the inconclusive band travel with the weights as ``policy.json``, as the operating
point does: who serves a model sets none of them.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from spira_tasks.speech import audio
from spira_tasks.speech.classifier import Classifier
from spira_tasks.speech.containers import UnusableAudio
from spira_tasks.speech.probe import Quality, quality

POLICY = "policy.json"

Decision = Literal["positive", "negative", "inconclusive"]
Range = tuple[float | None, float | None]  # inclusive; None is an open end


@dataclass(frozen=True)
class Limit:
    """Outside ``limit`` a recording gets no answer; outside ``typical`` its answer has a flag."""

    measure: str  # a field of ``Quality``
    limit: Range
    typical: Range


@dataclass(frozen=True)
class Policy:
    """When a model answers, and when it decides."""

    max_seconds: float  # of a recording; a longer one is refused before it is decoded
    limits: tuple[Limit, ...] = ()
    inconclusive: tuple[float, float] | None = None  # probabilities, inclusive

    def save(self, folder: Path) -> None:
        (folder / POLICY).write_text(json.dumps(asdict(self), indent=1, sort_keys=True))

    @classmethod
    def load(cls, folder: Path) -> Policy:
        fields = json.loads((folder / POLICY).read_text())
        band = fields["inconclusive"]
        limits = tuple(
            Limit(one["measure"], tuple(one["limit"]), tuple(one["typical"]))
            for one in fields["limits"]
        )
        return cls(fields["max_seconds"], limits, tuple(band) if band else None)


@dataclass(frozen=True)
class Answer:
    """``probability`` and ``decision`` are None exactly where ``record_again`` says why.

    The codes of ``record_again`` are those of ``UnusableAudio``, or a measure with ``_low`` or
    ``_high``, as are those of ``unusual``.
    """

    probability: float | None = None
    decision: Decision | None = None
    record_again: tuple[str, ...] = ()
    unusual: tuple[str, ...] = ()
    window_scores: tuple[float, ...] = ()


def answer(classifier: Classifier, policy: Policy, content: bytes) -> Answer:
    """Score the bytes of an audio file, unless it is unusable.

    Raises
    ------
    ArithmeticError
        When the network gives no number.
    """
    try:
        sound = audio.decode(content, policy.max_seconds)
        pcm16 = audio.to_pcm16(sound)
    except UnusableAudio as error:
        return Answer(record_again=(error.reason,))
    measured = quality(sound, pcm16)
    refused = tuple(code for one in policy.limits for code in outside(measured, one, one.limit))
    flags = [code for one in policy.limits for code in outside(measured, one, one.typical)]
    unusual = tuple(code for code in flags if code not in refused)
    if refused:
        return Answer(record_again=refused, unusual=unusual)
    waveform = torch.from_numpy(pcm16.astype("float32") / audio.FULL_SCALE)
    with torch.inference_mode():
        features = classifier.extractor.of_recording(waveform)
        scores = classifier.window_scores(features)
        probability = float(scores.mean())
    if not math.isfinite(probability):
        raise ArithmeticError("the network gave no number: its weights are damaged")
    decision = decide(probability, classifier.spec.operating_point, policy)
    return Answer(probability, decision, (), unusual, tuple(scores.tolist()))


def outside(measured: Quality, limit: Limit, accepted: Range) -> list[str]:
    """The code of a measure outside a range; nothing where it could not be measured."""
    value, (low, high) = getattr(measured, limit.measure), accepted
    if value is None:
        return []
    if low is not None and value < low:
        return [f"{limit.measure}_low"]
    return [f"{limit.measure}_high"] if high is not None and value > high else []


def decide(probability: float, operating_point: float, policy: Policy) -> Decision:
    if policy.inconclusive and policy.inconclusive[0] <= probability <= policy.inconclusive[1]:
        return "inconclusive"
    return "positive" if probability >= operating_point else "negative"
