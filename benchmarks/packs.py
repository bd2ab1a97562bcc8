"""How many recordings are best kept in few files: ``python -m benchmarks.packs``.

The same contents (waveforms of 5 s, MFCC of 2 windows) are written as one file each, and in packs
of 16 MiB in four formats; each is written, opened, read in random order with every content checked
by its digest, and written anew without one content, which is what an erasure needs.  The formats
take turns; the output is the median, and its ratio to plain packs of the same turn.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import safetensors.numpy

PACK_BYTES = 16 << 20


class Format(Protocol):
    def write(self, folder: Path, contents: list[bytes]) -> None: ...
    def open(self, folder: Path) -> Callable[[int], bytes]: ...
    def erase(self, folder: Path, place: int) -> None: ...


class Loose:
    """One file each, as it was."""

    def write(self, folder: Path, contents: list[bytes]) -> None:
        for number, content in enumerate(contents):
            (folder / str(number)).write_bytes(content)

    def open(self, folder: Path) -> Callable[[int], bytes]:
        return lambda place: (folder / str(place)).read_bytes()

    def erase(self, folder: Path, place: int) -> None:
        (folder / str(place)).unlink()


class Packed(ABC):
    """What the formats of packs share: ``n`` contents a file."""

    def write(self, folder: Path, contents: list[bytes]) -> None:
        self.n = max(1, PACK_BYTES // (sum(map(len, contents)) // len(contents)))
        for start in range(0, len(contents), self.n):
            self.write_one(folder / str(start // self.n), contents[start : start + self.n])

    def erase(self, folder: Path, place: int) -> None:
        read, file = self.open(folder), folder / str(place // self.n)
        first = place - place % self.n
        n = min(self.n, self.n_in(file))
        rest = [read(first + number) for number in range(n) if first + number != place]
        self.write_one(file.with_suffix(".new"), rest)
        file.with_suffix(".new").replace(file)

    @abstractmethod
    def write_one(self, file: Path, contents: list[bytes]) -> None: ...

    @abstractmethod
    def open(self, folder: Path) -> Callable[[int], bytes]: ...

    @abstractmethod
    def n_in(self, file: Path) -> int: ...


class Plain(Packed):
    """Contents one after the other, and an index beside them."""

    def write_one(self, file: Path, contents: list[bytes]) -> None:
        file.write_bytes(b"".join(contents))
        ends = np.cumsum([len(content) for content in contents])
        np.save(f"{file}.npy", ends)

    def open(self, folder: Path) -> Callable[[int], bytes]:
        indexes = {file.stem: np.load(file) for file in folder.glob("*.npy")}

        def read(place: int) -> bytes:
            name, at = str(place // self.n), place % self.n
            ends = indexes[name]
            start = int(ends[at - 1]) if at else 0
            descriptor = os.open(folder / name, os.O_RDONLY)
            try:
                return os.pread(descriptor, int(ends[at]) - start, start)
            finally:
                os.close(descriptor)

        return read

    def n_in(self, file: Path) -> int:
        return len(np.load(f"{file}.npy"))


class Arrow(Packed):
    """Arrow IPC, one record batch a content, mapped into memory."""

    def write_one(self, file: Path, contents: list[bytes]) -> None:
        schema = pa.schema([("content", pa.large_binary())])
        with pyarrow.ipc.new_file(str(file), schema) as out:
            for content in contents:
                out.write_batch(pa.record_batch([pa.array([content], pa.large_binary())], schema))

    def open(self, folder: Path) -> Callable[[int], bytes]:
        files = {
            file.name: pyarrow.ipc.open_file(pa.memory_map(str(file))) for file in folder.iterdir()
        }
        return lambda place: (
            files[str(place // self.n)].get_batch(place % self.n).column(0)[0].as_py()
        )

    def n_in(self, file: Path) -> int:
        return int(pyarrow.ipc.open_file(pa.memory_map(str(file))).num_record_batches)


class Parquet(Packed):
    """Parquet, one row group a content, not compressed."""

    def write_one(self, file: Path, contents: list[bytes]) -> None:
        schema = pa.schema([("content", pa.large_binary())])
        with pq.ParquetWriter(file, schema, compression="none", use_dictionary=False) as out:
            for content in contents:
                out.write_table(pa.table([pa.array([content], pa.large_binary())], schema))

    def open(self, folder: Path) -> Callable[[int], bytes]:
        files = {file.name: pq.ParquetFile(file) for file in folder.iterdir()}
        return lambda place: (
            files[str(place // self.n)].read_row_group(place % self.n).column(0)[0].as_py()
        )

    def n_in(self, file: Path) -> int:
        return int(pq.ParquetFile(file).num_row_groups)


class Safetensors(Packed):
    """safetensors, one tensor of bytes a content."""

    def write_one(self, file: Path, contents: list[bytes]) -> None:
        tensors = {f"{n:05d}": np.frombuffer(one, np.uint8) for n, one in enumerate(contents)}
        safetensors.numpy.save_file(tensors, file)

    def open(self, folder: Path) -> Callable[[int], bytes]:
        files: dict[str, Any] = {
            file.name: safetensors.safe_open(file, "numpy") for file in folder.iterdir()
        }
        return lambda place: (
            files[str(place // self.n)].get_tensor(f"{place % self.n:05d}").tobytes()
        )

    def n_in(self, file: Path) -> int:
        opened: Any = safetensors.safe_open(file, "numpy")
        return len(opened.keys())


FORMATS: dict[str, Callable[[], Format]] = {
    "plain": Plain,
    "loose": Loose,
    "arrow": Arrow,
    "parquet": Parquet,
    "safetensors": Safetensors,
}


def trial(kind: str, contents: list[bytes], folder: Path) -> dict[str, float]:
    """Seconds of each act, and the number of files."""
    digests = [hashlib.sha256(content).digest() for content in contents]
    order = np.random.default_rng(0).permutation(len(contents))
    made = FORMATS[kind]()
    seconds = {}
    begun = time.perf_counter()
    made.write(folder, contents)
    seconds["write"] = time.perf_counter() - begun
    begun = time.perf_counter()
    read = made.open(folder)
    seconds["open"] = time.perf_counter() - begun
    begun = time.perf_counter()
    for place in order:
        if hashlib.sha256(read(int(place))).digest() != digests[place]:
            raise SystemExit(f"{kind} gave another content")
    seconds["read"] = time.perf_counter() - begun
    begun = time.perf_counter()
    made.erase(folder, 5)
    seconds["erase"] = time.perf_counter() - begun
    return seconds | {"files": float(len(list(folder.iterdir())))}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recordings", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    contents = [rng.bytes(size) for _ in range(args.recordings) for size in (160_044, 128_448)]
    turns = []
    for _ in range(args.turns):
        turn = {}
        for kind in FORMATS:
            folder = Path(tempfile.mkdtemp(prefix="packs-"))
            try:
                turn[kind] = trial(kind, contents, folder)
            finally:
                shutil.rmtree(folder)
        turns.append(turn)
    acts = ("write", "open", "read", "erase")
    print(f"{args.recordings} recordings, {len(contents)} contents, {args.turns} turns; ms")
    print(f"{'':12s}{'files':>7s}" + "".join(f"{act:>17s}" for act in acts))
    for kind in FORMATS:
        cells = []
        for act in acts:
            ms = median(turn[kind][act] for turn in turns) * 1000
            ratio = median(turn[kind][act] / turn["plain"][act] for turn in turns)
            cells.append(f"{ms:9.1f} ({ratio:4.1f}x)")
        print(f"{kind:12s}{turns[0][kind]['files']:7.0f}" + "".join(f"{c:>17s}" for c in cells))


if __name__ == "__main__":
    main()
