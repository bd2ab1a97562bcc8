"""How MLflow loads the classifier: no pickle, only safetensors, JSON and this source.

MLflow calls ``_load_pyfunc`` with the folder the classifier was logged from; the source files
travel with the model, so it needs neither this project nor its store.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile

from spira_tasks.speech.answers import Policy, answer
from spira_tasks.speech.classifier import SPECIFICATION, WEIGHTS, Classifier

VERSION = "VERSION"  # file with the digest of the classifier, which is a tag of its version too


class AudioClassifier:
    def __init__(self, classifier: Classifier, policy: Policy, version: str) -> None:
        self.classifier = classifier
        self.policy = policy
        self.version = version

    def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:
        """Score recordings.

        Parameters
        ----------
        model_input : DataFrame
            One row a recording: ``audio``, the bytes of a file; or ``samples``, a (time,) array in
            [-1, 1], with ``sample_rate_hz``.

        Returns
        -------
        DataFrame
            One row a recording: the fields of ``Answer``, the ``operating_point`` from which a
            probability is positive, and ``version``, the digest of the classifier.

        Raises
        ------
        ValueError
            When a row has no audio, or samples without their rate.
        """
        answers = [
            answer(self.classifier, self.policy, content_of(row))
            for row in model_input.to_dict("records")
        ]
        return pd.DataFrame(
            {
                # as objects: MLflow's server would write NaN, which is no JSON
                "probability": pd.Series([one.probability for one in answers], dtype="object"),
                "decision": pd.Series([one.decision for one in answers], dtype="object"),
                "record_again": [list(one.record_again) for one in answers],
                "unusual": [list(one.unusual) for one in answers],
                "window_scores": [list(one.window_scores) for one in answers],
                "operating_point": self.classifier.spec.operating_point,
                "version": self.version,
            }
        )


def content_of(row: dict[str, Any]) -> bytes:
    """The bytes of a row's file; samples become those of a WAV file, which keeps every one."""
    if isinstance(content := row.get("audio"), bytes):
        return content
    samples, rate_hz = row.get("samples"), row.get("sample_rate_hz")
    if samples is None or not isinstance(rate_hz, int) or rate_hz < 1:
        raise ValueError(
            "a row has neither `audio`, the bytes of a file, nor `samples` with `sample_rate_hz`, "
            "a whole number of Hz: give one of the two for every row"
        )
    file = io.BytesIO()
    soundfile.write(file, np.asarray(samples, np.float32), rate_hz, format="WAV", subtype="FLOAT")
    return file.getvalue()


def load(folder: Path) -> AudioClassifier:
    """Load what ``Classifier.save`` and ``Policy.save`` wrote, beside the file ``VERSION``."""
    classifier = Classifier.load(folder / WEIGHTS, folder / SPECIFICATION)
    return AudioClassifier(classifier, Policy.load(folder), (folder / VERSION).read_text())


def _load_pyfunc(path: str) -> AudioClassifier:
    return load(Path(path))
