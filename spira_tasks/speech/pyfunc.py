"""How MLflow loads the classifier: no pickle, only safetensors, JSON and this source.

MLflow calls ``_load_pyfunc`` with the folder the classifier was logged from; the source files
travel with the model, so it needs neither this project nor its store.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from spira_tasks.speech.classifier import SPECIFICATION, WEIGHTS, Classifier


class WaveformClassifier:
    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def predict(self, model_input: np.ndarray[Any, Any]) -> pd.DataFrame:
        """Score waveforms.

        Parameters
        ----------
        model_input : (recording, time) float32 array
            Samples in [-1, 1] at 16 kHz.

        Returns
        -------
        DataFrame
            One row a recording: ``probability`` of respiratory insufficiency,
            ``operating_point``, and ``positive``: whether the first reaches the second.
        """
        waveforms = torch.from_numpy(np.ascontiguousarray(model_input, dtype=np.float32))
        probabilities = [self.classifier.probability(waveform) for waveform in waveforms]
        threshold = self.classifier.spec.operating_point
        frame = pd.DataFrame({"probability": probabilities, "operating_point": threshold})
        return frame.assign(positive=frame["probability"] >= threshold)


def _load_pyfunc(path: str) -> WaveformClassifier:
    folder = Path(path)
    return WaveformClassifier(Classifier.load(folder / WEIGHTS, folder / SPECIFICATION))
