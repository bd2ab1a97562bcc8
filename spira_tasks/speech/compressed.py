"""What libsndfile does not decode and PyAV does: AAC, AMR, and Opus in WebM.

PyAV is no requirement: its wheel brings libraries under the GPL (docs/adr/0028).  Where it is not
installed, such a file is refused, and the refusal says what to install.
"""

from __future__ import annotations

import io
import struct
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from spira_tasks.speech.containers import COMPRESSED, UnusableAudio

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

REQUIREMENTS = "requirements-importers.txt"
# By container.  Named, because FFmpeg would otherwise also try formats that open other files.
DEMUXERS = {"mpeg4": "mp4", "webm": "matroska", "amr": "amr", "aac": "aac"}
PADDING_SECONDS = 0.1  # by which a stream may be shorter than declared: encoders pad
SEGMENT, CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"  # elements of Matroska


def decoder() -> str:
    """Version of the optional decoder, empty where it is not installed."""
    try:
        return metadata.version("av")
    except metadata.PackageNotFoundError:
        return ""


class Stream:
    """The sound of a compressed file, opened; its header is known before it is decoded.

    Parameters
    ----------
    content : bytes
        The whole file.
    container : str
        A key of ``DEMUXERS``.

    Raises
    ------
    UnusableAudio
        With reason ``unsupported_container``, ``truncated``, ``several_streams``, ``undecodable``
        or ``empty``.
    """

    def __init__(self, content: bytes, container: str) -> None:
        if not decoder():
            raise UnusableAudio(
                "unsupported_container",
                f"{COMPRESSED[container]} is not read without the optional decoder: "
                f"`pip install -r {REQUIREMENTS}`, or send the recording as WAV or FLAC",
            )
        if container == "mpeg4":
            _check_boxes(content)
        elif container == "webm":
            _check_elements(content)
        self._av: Any = import_module("av")
        self._container = container
        try:
            self._file = self._av.open(io.BytesIO(content), format=DEMUXERS[container])
        except (self._av.FFmpegError, ValueError) as error:
            raise self._undecodable() from error
        streams = self._file.streams
        if not streams.audio:
            raise UnusableAudio("empty", "the file has no sound")
        if len(streams.audio) > 1 or streams.video:
            raise UnusableAudio(
                "several_streams", "several sounds or pictures in one file; send one sound alone"
            )
        self._stream = streams.audio[0]
        if self._stream.codec_context is None:  # a codec that nobody knows
            raise self._undecodable()
        self.sample_rate_hz = int(self._stream.codec_context.sample_rate)
        self.n_channels = int(self._stream.codec_context.channels)
        self.codec = str(self._stream.codec_context.name)
        self.seconds = float(self._file.duration or 0) / self._av.time_base  # 0: not declared

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, limit: int) -> NDArray[np.float32]:
        """Decode to (time, channel) samples; stop once there are more than ``limit``."""
        import numpy as np  # a step that asks for the decoder's version alone does without

        pieces, n = [np.zeros((self.n_channels, 0), np.float32)], 0
        flat = self._av.AudioResampler(format="fltp")  # of the same rate and channels
        try:
            for frame in self._file.decode(self._stream):
                if frame.sample_rate != self.sample_rate_hz:
                    raise UnusableAudio("several_streams", "the sample rate changes on the way")
                pieces += [piece.to_ndarray() for piece in flat.resample(frame)]
                n += frame.samples
                if n > limit:
                    break
            samples = np.concatenate(pieces, axis=1)
        except UnusableAudio:
            raise
        except (self._av.FFmpegError, ValueError) as error:
            raise self._undecodable() from error
        is_whole = n > limit or n / self.sample_rate_hz >= self.seconds - PADDING_SECONDS
        if not is_whole:
            raise UnusableAudio("truncated", "fewer samples than the header promises")
        return np.ascontiguousarray(samples.T)

    def _undecodable(self) -> UnusableAudio:
        return UnusableAudio("undecodable", f"PyAV cannot decode this {self._container}")


def _truncated() -> UnusableAudio:
    return UnusableAudio("truncated", "the file ends before what its header promises")


def _check_boxes(content: bytes) -> None:
    """Refuse an MPEG-4 file whose last box is not whole (ISO/IEC 14496-12, 4.2)."""
    position = 0
    while position + 8 <= len(content):
        (size,) = struct.unpack_from(">I", content, position)
        if size == 1 and position + 16 <= len(content):
            (size,) = struct.unpack_from(">Q", content, position + 8)
        if size < 8:  # 0: to the end of the file
            return
        position += size
    if position > len(content):
        raise _truncated()


def _check_elements(content: bytes) -> None:
    """Refuse a WebM file whose last element is not whole (RFC 8794).

    Browsers write segments and clusters without a size.  A file that is cut exactly between two
    blocks passes, as with Ogg.
    """
    position = 0
    while position < len(content):
        name, size, position = _element(content, position)
        if size is None or name in (SEGMENT, CLUSTER):
            if size is not None and position + size > len(content):
                raise _truncated()
            continue  # into it
        position += size
    if position > len(content):
        raise _truncated()


def _element(content: bytes, position: int) -> tuple[bytes, int | None, int]:
    """Name and size of an element, None where it has no size, and where its content begins."""
    n_name = 9 - content[position].bit_length()
    at = position + n_name
    if at >= len(content):
        raise _truncated()
    n_size = 9 - content[at].bit_length()
    if n_size > 8 or n_name > 4 or at + n_size > len(content):
        raise _truncated()
    bits = 7 * n_size
    size = int.from_bytes(content[at : at + n_size]) & ((1 << bits) - 1)
    unknown = size == (1 << bits) - 1
    return content[position:at], None if unknown else size, at + n_size
