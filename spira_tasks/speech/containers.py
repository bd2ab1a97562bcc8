"""What a file is by its first bytes, and whether its header accounts for all of its bytes.

libsndfile drops what a header does not declare, without a word: the second of two recordings that
were joined, or the rest of one whose recorder was stopped before it wrote the true length.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

W64 = bytes.fromhex("7269 6666 2e91 cf11 a5d6 28db 04c1 0000")
W64_SAMPLES = bytes.fromhex("6461 7461 f3ac d311 8cd1 00c0 4f8e db8a")
SIGNATURES = {  # by place and bytes
    (8, b"WAVE"): "wav",  # RIFF, RIFX or RF64 stands before
    (0, b"fLaC"): "flac",
    (0, b"OggS"): "ogg",
    (8, b"AIFF"): "aiff",
    (8, b"AIFC"): "aiff",
    (0, b"caff"): "caf",
    (0, b".snd"): "au",
    (0, W64): "w64",
}
COMPRESSED_SIGNATURES = {
    (4, b"ftyp"): "mpeg4",
    (0, b"\x1aE\xdf\xa3"): "webm",
    (0, b"#!AMR"): "amr",
    (0, b"\xff\xf1"): "aac",
    (0, b"\xff\xf9"): "aac",
}
COMPRESSED = {  # read by ``compressed``, where its decoder is installed
    "mpeg4": "MPEG-4 (m4a, mp4, 3gp)",
    "webm": "WebM or Matroska",
    "amr": "AMR",
    "aac": "AAC",
}
WINDOWS_MEDIA = b"\x30\x26\xb2\x75"
NO_SIZE = 0x7FFF0000  # a size from here on stands for a length that was not known
WRONG_BY = (36, 44)  # some recorders write the size of the file, or of RIFF, as that of the samples
FLAC_STREAM = (b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22")  # with the head of its first block


class UnusableAudio(ValueError):
    """A file that cannot become a waveform; ``reason`` is a stable code, the text one line.

    It never ends a run: ingest puts the recording into quarantine and goes on.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Layout:
    """A container of chunks: a name, a size, as many bytes."""

    start: int  # of the first chunk
    size: str  # format of a size
    n_name: int = 4
    samples: bytes = b"data"  # name of the chunk that holds them
    n_counted: int = 0  # bytes of name and size that a size counts
    align: int = 2

    @property
    def n_head(self) -> int:
        return self.n_name + struct.calcsize(self.size)

    def chunk(self, content: bytes, position: int) -> tuple[bytes, int]:
        """The name of the chunk at a position, and how many bytes follow its head."""
        (size,) = struct.unpack_from(self.size, content, position + self.n_name)
        return content[position : position + self.n_name], size - self.n_counted

    def after(self, position: int, size: int) -> int:
        """Where the next chunk begins."""
        end = position + self.n_head + size
        return end + -end % self.align


LAYOUTS = {
    b"RIFF": Layout(12, "<I"),
    b"RF64": Layout(12, "<I"),
    b"RIFX": Layout(12, ">I"),
    b"FORM": Layout(12, ">I", samples=b"SSND"),
    b"caff": Layout(8, ">q", align=1),
    b"riff": Layout(40, "<q", n_name=16, samples=W64_SAMPLES, n_counted=24, align=8),
}


@dataclass(frozen=True)
class Contained:
    """A file that its decoder decodes to its end: libsndfile, or that of ``COMPRESSED``."""

    container: str
    content: bytes
    n_declared: int | None = None  # samples of each channel; 0: not known; None: ask libsndfile


def opened(content: bytes) -> Contained:
    """Identify a file, and complete a header that was never finished.

    Raises
    ------
    UnusableAudio
        With reason ``empty``, ``unknown_container``, ``unsupported_container``, ``truncated``,
        ``undeclared_bytes`` or ``several_streams``.
    """
    if not content:
        raise UnusableAudio("empty", "the file has no bytes")
    tagged = content[:3] == b"ID3"
    if tagged and len(content) >= 10:  # seven bits of each byte count
        content = content[10 + sum(byte << 7 * n for n, byte in enumerate(content[9:5:-1])) :]
    container = _container(content)
    if container in COMPRESSED:
        return Contained(container, content)
    if container in ("flac", "mp3") and content[-128:-125] == b"TAG":
        content = content[:-128]
    if container == "flac":
        return _flac(content)
    if container == "ogg":
        _check_ogg(content)
    elif container == "mp3":
        _check_mp3(content)
    elif container == "au":
        content = _finished(content, *struct.unpack_from(">II", content.ljust(12, b"\0"), 4))
    else:
        content = _of_chunks(content)
    return Contained(container, content)


def _container(content: bytes) -> str:
    for (place, signature), name in SIGNATURES.items():
        if content.startswith(signature, place) and (place == 0 or content[:4] in LAYOUTS):
            return name
    for (place, signature), name in COMPRESSED_SIGNATURES.items():
        if content.startswith(signature, place):
            return name
    if content.startswith(WINDOWS_MEDIA):
        raise UnusableAudio(
            "unsupported_container", "Windows Media is not read; send the recording as WAV or FLAC"
        )
    if _is_mp3(content):
        return "mp3"
    raise UnusableAudio("unknown_container", "no kind of audio file by its first bytes")


def _is_mp3(content: bytes, position: int = 0) -> bool:
    """Whether a frame of MP3 begins: 11 bits that are set, any version, layer 3."""
    head = content[position : position + 2]
    return len(head) == 2 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2


def _of_chunks(content: bytes) -> bytes:
    layout = LAYOUTS[content[:4]]
    position = layout.start
    while position + layout.n_head <= len(content):
        name, size = layout.chunk(content, position)
        if name == layout.samples:
            if content[:4] == b"RF64" and len(content) >= 36:
                (size,) = struct.unpack_from("<Q", content, 28)  # of the first chunk, ds64
            first = position + layout.n_head
            return _finished(content, first, size, layout)
        if size < 0:
            break
        position = layout.after(position, size)
    raise UnusableAudio("truncated", "the file ends before its samples")


def _finished(content: bytes, first: int, size: int, layout: Layout | None = None) -> bytes:
    """The content if the samples, from ``first``, are as long as declared, or if that is mended."""
    available = len(content) - first
    align = layout.align if layout else 1
    ends = {first + size, first + size + -(first + size) % align}  # not every writer aligns
    if 0 <= size <= available and any(_are_chunks(content, end, layout) for end in ends):
        return content
    if size <= 0 or size >= NO_SIZE or abs(size - available) in WRONG_BY:
        if layout is not None:
            kind = content[:4].replace(b"RF64", b"RIFF")  # which has its sizes in another place
            length = struct.pack(layout.size, available + layout.n_counted)
            return kind + content[4 : first - len(length)] + length + content[first:]
        if size == 0xFFFFFFFF:  # what AU has for it, and libsndfile reads
            return content
    if size > available:
        raise UnusableAudio("truncated", "the file ends before what its header promises")
    raise UnusableAudio(
        "undeclared_bytes",
        "the file goes on after what its header declares: joined, or never finished",
    )


def _are_chunks(content: bytes, position: int, layout: Layout | None) -> bool:
    """Whether only whole chunks of other kinds, or zeros, stand from a position to the end.

    Fewer bytes than a chunk's head are too few to be sound.
    """
    while content.count(0, position) != max(len(content) - position, 0):
        if layout is None:
            return False
        if position + layout.n_head > len(content):
            return True
        name, size = layout.chunk(content, position)
        if name in (content[: layout.n_name], layout.samples) or size < 0 or not name[:4].isascii():
            return False
        position = layout.after(position, size)
        if position > len(content) + layout.align - 1:
            return False
    return True


def _check_ogg(content: bytes) -> None:
    """Refuse an incomplete last page, and more than one stream.

    The end-of-stream flag is not read, because some phones never set it: a file that is cut exactly
    between two pages (about a second apart) passes.
    """
    position = n_streams = 0
    while content.startswith(b"OggS", position):
        if position + 27 > len(content):
            raise UnusableAudio("truncated", "the file ends within a page of Ogg")
        n_segments = content[position + 26]
        n_streams += bool(content[position + 5] & 2)  # the first page of a stream
        position += 27
        position += n_segments + sum(content[position : position + n_segments])
    if position > len(content):
        raise UnusableAudio("truncated", "the file ends before what its header promises")
    if n_streams > 1:
        raise _several_streams()
    if not _are_chunks(content, position, None):
        raise UnusableAudio("undeclared_bytes", "there are bytes that belong to no page of Ogg")


def _check_mp3(content: bytes) -> None:
    """Refuse what goes on after the number of bytes that the first frame declares, if it does."""
    place = max(content.find(b"Xing", 0, 64), content.find(b"Info", 0, 64))
    if place < 0 or len(content) < place + 16:
        return
    flags, first, second = struct.unpack_from(">III", content, place + 4)
    n_bytes = second if flags & 1 else first
    if flags & 2 and _is_mp3(content, n_bytes):
        raise _several_streams()


def _flac(content: bytes) -> Contained:
    """A FLAC file without its number of samples, so that libsndfile decodes all of it."""
    if len(content) < 26:
        raise UnusableAudio("truncated", "the file ends before its samples")
    if any(content.find(stream, 4) > 0 for stream in FLAC_STREAM):
        raise _several_streams()
    n_declared = int.from_bytes(content[21:26]) & 0xFFFFFFFFF  # 36 bits
    head = content[:21] + bytes([content[21] & 0xF0]) + bytes(4)
    return Contained("flac", head + content[26:], n_declared)


def _several_streams() -> UnusableAudio:
    return UnusableAudio("several_streams", "several recordings in one file; send each as a file")
