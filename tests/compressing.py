"""The optional decoder beside this environment, and files that only it reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import optional

from spira_tasks.speech.compressed import REQUIREMENTS

(PINNED,) = optional.pinned(REQUIREMENTS)
FOLDER = optional.folder_of(REQUIREMENTS)
SECONDS = 2.0


@contextmanager
def installed() -> Iterator[Any]:
    """PyAV, which can be found for as long as this lasts."""
    with optional.installed(REQUIREMENTS):
        import av  # type: ignore[import-not-found, unused-ignore]

        yield av


def encoded(
    av: Any,
    container: str,
    codec: str,
    rate_hz: int,
    options: dict[str, str],
    n_channels: int = 1,
    seconds: float = SECONDS,
) -> bytes:
    """A tone of 440 Hz in a file of such a kind."""
    layout = {1: "mono", 2: "stereo"}[n_channels]
    times = np.arange(int(seconds * rate_hz)) / rate_hz
    tone = (0.5 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(np.stack([tone] * n_channels), format="fltp", layout=layout)
    frame.sample_rate, frame.pts = rate_hz, 0
    with NamedTemporaryFile() as written:  # to put its header first, the encoder reads it again
        with av.open(written.name, "w", format=container, options=options) as file:
            stream = file.add_stream(codec, rate=rate_hz)
            stream.layout = layout
            size = stream.codec_context.frame_size or None
            cut = av.AudioResampler(stream.format, layout, rate_hz, frame_size=size)
            for piece in [*cut.resample(frame), *cut.resample(None)]:
                file.mux(stream.encode(piece))
            file.mux(stream.encode(None))
        return Path(written.name).read_bytes()
