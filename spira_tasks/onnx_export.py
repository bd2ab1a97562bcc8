"""A registered model as an ONNX graph, to serve it by Triton, KServe or ONNX Runtime.

The graph maps windows of a waveform to their probabilities.  Features are in it; reading audio, the
limits beyond which there is no answer and the inconclusive band are not.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spira_tasks import model_process, package
from spira_tasks.errors import ConfigError, SpiraError

if TYPE_CHECKING:
    from spira_tasks.package import Golden

REQUIREMENTS = "requirements-onnx.txt"
INPUT, OUTPUT = "windows", "probability"


def export(folder: Path, file: Path) -> float:
    """Write the model of a package to an ONNX file, once its answers are those of the package.

    Returns
    -------
    float
        The largest difference of a window's probability on the golden clips.

    Raises
    ------
    ConfigError
        When the packages of ``REQUIREMENTS`` are not installed, the model has no golden clips, or
        ``graph`` refuses it.
    SpiraError
        When an answer differs by more than ``package.TOLERANCE``; nothing is written then.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch needs it
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed, which an export needs: pip install -r {REQUIREMENTS}"
        ) from error

    golden, model = package.golden(folder), model_process.load(folder)
    content = graph(model)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    difference = max(
        float(abs(session.run([OUTPUT], {INPUT: windows})[0] - expected).max())
        for windows, expected in answered(golden, model.classifier.spec.features)
    )
    if not difference <= package.TOLERANCE:
        raise SpiraError(
            f"the ONNX graph gives other probabilities than the model, by {difference:.1e}: it is "
            f"not written. Install the versions of {REQUIREMENTS}, and export again"
        )
    file.write_bytes(content)
    return difference


def graph(model: Any) -> bytes:
    """The ONNX graph of a loaded model, with what its user has to know as its metadata.

    Raises
    ------
    ConfigError
        When its feature is not computed by tensors of one shape, or its network cannot be traced.
    """
    import torch
    from torch import Tensor, nn

    classifier = model.classifier
    features = classifier.spec.features
    if classifier.extractor.spectral is None or features.temporal != "windows":
        raise ConfigError(
            f"a model of the feature {features.name} with temporal {features.temporal} has no ONNX "
            "graph, which maps windows of one length and computes spectra alone: serve the "
            "registered model, or train one of mfcc, log_mel, mel or spectrogram of windows"
        )

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # In 64 bits: ONNX Runtime's STFT of 32 bits is so inexact where a bin is quiet that a
            # probability differs by 1e-5.
            self.extractor = copy.deepcopy(classifier.extractor).double()
            self.network = classifier.network

        def forward(self, windows: Tensor) -> Tensor:
            logits = self.network(self.extractor(windows.double()).float())
            return classifier.calibrated(logits)  # type: ignore[no-any-return]

    spec = classifier.spec
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it looks for torchvision
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about itself
        try:
            program = torch.onnx.export(
                Windows().eval(),
                (torch.zeros(2, spec.features.n_window_samples),),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("window", min=1)},),
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ConfigError(
                f"the network {spec.model} has no ONNX graph: torch cannot trace it "
                f"({type(error.__cause__ or error).__name__}). Serve the registered model itself"
            ) from error
    proto: Any = program.model_proto  # type: ignore[union-attr]
    for name, value in {
        "spira.version": model.version,
        "spira.task": spec.task,
        "spira.operating_point": spec.operating_point,
        "spira.features": json.loads(spec.features.to_json()),
    }.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = name, value if isinstance(value, str) else json.dumps(value)
    return bytes(proto.SerializeToString())


def answered(golden: Golden, features: Any) -> list[tuple[Any, Any]]:
    """The windows of every clip that the model answers, and the probability of each."""
    import numpy as np
    import torch

    from spira_tasks.speech import audio
    from spira_tasks.speech.features import windows

    found = []
    for clip in golden.clips:
        if scores := clip.answer["window_scores"]:
            sound = audio.decode(clip.content, clip.audio_seconds + 1)
            waveform = audio.to_pcm16(sound).astype("float32") / audio.FULL_SCALE
            cut = windows(torch.from_numpy(waveform), features).numpy()
            found.append((cut, np.array(scores, np.float32)))
    return found
