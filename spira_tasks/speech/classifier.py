"""The whole classifier: from a waveform to a probability, with its operating point.

Windowing, features and averaging travel with the weights, so that serving cannot differ from
training.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from spira_tasks.speech.features import FeatureExtractor, FeatureSpec
from spira_tasks.speech.model import Standardize
from spira_tasks.speech.networks import build

WEIGHTS, SPECIFICATION = "weights.safetensors", "classifier.json"


@dataclass(frozen=True)
class ClassifierSpec:
    """What builds the classifier, besides its weights."""

    task: str = "SENTENCE"  # the only one whose recordings the classifier scores
    features: FeatureSpec = field(default_factory=FeatureSpec)
    model: str = "spiraconv_v2"  # of spira_tasks.speech.networks
    implementation: str = ""  # of the package that the network is of
    options: Mapping[str, Any] = field(default_factory=dict)  # of the network, JSON values
    # Probability from which a recording is called positive, chosen on the validation subjects.
    operating_point: float = 0.5
    # Of the log-odds of each window, fitted on the validation subjects where that helps.
    shift: float = 0.0
    scale: float = 1.0

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ClassifierSpec:
        fields = json.loads(text)
        # a classifier of version 0.2 has what a SPIRAConv may be given beside its name
        old = {name: fields.pop(name) for name in ("dropout", "n_hidden") if name in fields}
        options = {**old, **fields.get("options", {})}
        features = FeatureSpec(**fields["features"])
        return cls(**{**fields, "features": features, "options": options})


class Classifier(nn.Module):
    """A network between the windows of a waveform and the mean of their scores."""

    def __init__(self, spec: ClassifierSpec) -> None:
        super().__init__()
        self.spec = spec
        self.extractor = FeatureExtractor(spec.features)
        self.standardize = Standardize(spec.features.n_bins)
        n_frames, n_bins = spec.features.n_frames, spec.features.n_bins
        self.scorer = build(spec.model, n_frames, n_bins, spec.options, spec.implementation)
        self.network = nn.Sequential(self.standardize, self.scorer)

    @torch.inference_mode()
    def probability(self, waveform: Tensor) -> float:
        """Probability of respiratory insufficiency of one (time,) float waveform at 16 kHz."""
        return self.score(self.extractor.of_recording(waveform))

    @torch.inference_mode()
    def score(self, features: Tensor) -> float:
        """Mean over the windows of one recording, given its (window, frame, bin) features."""
        return float(self.window_scores(features).mean())

    @torch.inference_mode()
    def window_scores(self, features: Tensor) -> Tensor:
        """Probability of each window, a (window,) tensor, given (window, frame, bin) features."""
        return self.calibrated(self.window_logits(features))

    @torch.inference_mode()
    def window_logits(self, features: Tensor) -> Tensor:
        """Log-odds of each window as the network gives them, before they are calibrated."""
        self.eval()
        infer = getattr(self.scorer, "infer", self.scorer)
        logits: Tensor = infer(self.standardize(features))
        return logits

    def calibrated(self, logits: Tensor) -> Tensor:
        """Probabilities of log-odds that the network gives."""
        return torch.sigmoid(self.spec.shift + self.spec.scale * logits)

    def save(self, folder: Path) -> None:
        """Write the weights and the specification; the same classifier gives the same bytes."""
        weights = {name: w.contiguous().cpu() for name, w in self.network.state_dict().items()}
        # Not save_file: on a full disk its error has no errno.
        (folder / WEIGHTS).write_bytes(save(weights))
        (folder / SPECIFICATION).write_text(self.spec.to_json())

    @classmethod
    def load(cls, weights: Path, specification: Path) -> Classifier:
        classifier = cls(ClassifierSpec.from_json(specification.read_text()))
        classifier.network.load_state_dict(load_file(weights))
        return classifier.eval()

    def with_operating_point(self, threshold: float) -> Classifier:
        """Return the same weights with another operating point."""
        return self._with(dataclasses.replace(self.spec, operating_point=threshold))

    def recalibrated(self, shift: float, scale: float) -> Classifier:
        """Return the same weights with other probabilities."""
        return self._with(dataclasses.replace(self.spec, shift=shift, scale=scale))

    def _with(self, spec: ClassifierSpec) -> Classifier:
        other = Classifier(spec)
        other.network.load_state_dict(self.network.state_dict())
        return other.eval()
