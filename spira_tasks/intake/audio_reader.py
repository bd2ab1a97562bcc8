"""Audio files of a folder into stored waveforms and measurements, each file once."""

from __future__ import annotations

import hashlib
import os
import posixpath
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd

from spira_tasks.intake.releases import Released, nothing_released
from spira_tasks.progress import progress
from spira_tasks.speech import audio
from spira_tasks.speech.compressed import REQUIREMENTS, decoder
from spira_tasks.speech.containers import UnusableAudio
from spira_tasks.speech.probe import Probe, probe

if TYPE_CHECKING:
    from spira_tasks.artifacts import Directory, Packs
    from spira_tasks.contract.step import Shard
    from spira_tasks.intake.record_contract import Faults
    from spira_tasks.work import Record, Work

DTYPES = {"int": "int64", "float": "float64", "float | None": "float64", "str": "str"}
AUDIO_COLUMNS = {  # columns that are measured from the audio, and their types
    "audio_sha256": "str",
    "waveform": "str",
    **{field.name: DTYPES[str(field.type)] for field in fields(Probe)},
}
OPTIONAL_DECODER = f"pip install -r {REQUIREMENTS}"
POOLS = ("train", "evaluation")
BANK = (
    *("noise_id", "pool", "hospital_id", "waveform"),
    *("duration_seconds", "level_dbfs", "peak", "syllabic_modulation_db"),
)
SITE_NAME = r"[A-Za-z0-9._-]{1,40}"  # anything else that a list of noises calls a site is dropped


@dataclass(frozen=True)
class AudioReader:
    """Converts audio files into stored waveforms, and measures them."""

    data: Directory  # where the files are
    work: Work  # a file that was converted before, in this run or another, is not decoded again
    min_seconds: float  # of a recording that is taken
    max_seconds: float
    # Whether a person has lifted the refusal of a row for a reason.
    is_released: Released = nothing_released

    def read_audio(self, paths: pd.Series, label: str) -> tuple[pd.DataFrame, Faults]:
        """Convert and measure the files at ``paths``.

        Parameters
        ----------
        paths : Series of str
            Relative to the folder, as the table that came writes them.
        label : str
            Of the progress line.

        Returns
        -------
        measured : DataFrame
            The columns of ``AUDIO_COLUMNS`` for the rows that can be used, under their labels.
        faults : dict
            Row label to ``(reason, detail)`` for the others.
        """
        names = self._names(paths)
        files = sorted({*names.dropna()})
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = progress(pool.map(self._remembered, files), label, total=len(files))
            records = dict(zip(files, done, strict=True))
        faults: Faults = {}
        rows = {}
        for row, name in names.items():
            if pd.isna(name):
                faults[row] = ("missing_audio", "the file that the row names is not there")
                continue
            record = records[name]
            if "reason" in record:
                faults[row] = (record["reason"], record["detail"])
            elif record["duration_seconds"] < self.min_seconds and not self.is_released(
                row, "too_short"
            ):
                faults[row] = ("too_short", f"shorter than {self.min_seconds:g} s")
            else:
                rows[row] = record
        measured = pd.DataFrame.from_dict(rows, orient="index", columns=[*AUDIO_COLUMNS])
        return measured.astype(AUDIO_COLUMNS), faults

    def sha256(self, paths: pd.Series) -> pd.Series:
        """SHA-256 of the files at ``paths``, without converting them; NaN where there is none."""
        return self._names(paths).dropna().map(self._sha256)

    def work_ahead(self, paths: pd.Series, shard: Shard, label: str) -> int:
        """Convert the files at ``paths`` that are in a shard; return how many they are."""
        files = sorted({name for name in self._names(paths).dropna() if shard.has(name)})
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in progress(pool.map(self._remembered, files), label, total=len(files)):
                pass
        return len(files)

    def _names(self, paths: pd.Series) -> pd.Series:
        """The file of each path, as the folder names it; NaN where there is none."""
        # a name with bytes that are not UTF-8 has surrogates, which no row can hold
        names = [name for name in self.data.names if name == name.encode(errors="ignore").decode()]
        known = {normalised(name): name for name in names}
        in_any_case: dict[str, list[str]] = {}  # some systems do not tell upper case from lower
        for path, name in known.items():
            in_any_case.setdefault(path.casefold(), []).append(name)

        def found(path: str) -> str | None:
            path = normalised(path)
            similar = in_any_case.get(path.casefold(), [])
            return known.get(path, similar[0] if len(similar) == 1 else None)

        return paths.map(found, na_action="ignore").astype("str")

    def _sha256(self, name: str) -> str:
        """The SHA-256 of a file, in hex; it is read where its source does not say it."""
        kind, _, digest = self.data.identity(name).partition(":")
        return digest if kind == "sha256" else hashlib.sha256(self.data.read(name)).hexdigest()

    def _remembered(self, name: str) -> Record:
        identity = self.data.identity(name)
        if identity.startswith("sha256:"):
            return self._of_content(identity.removeprefix("sha256:"), lambda: self.data.read(name))

        def fetch() -> Record:
            content = self.data.read(name)
            return self._of_content(hashlib.sha256(content).hexdigest(), lambda: content)

        return self.work.remember({"version": identity} | self._settings, fetch)

    def _of_content(self, sha256: str, read: Callable[[], bytes]) -> Record:
        """The record of a content, with its SHA-256 where there is a waveform to go with."""
        parts = {"sha256": sha256} | self._settings
        made = self.work.remember(parts, lambda: convert(read(), self.max_seconds, self.work.blobs))
        return made if "reason" in made else {"audio_sha256": sha256, **made}

    @cached_property  # what is installed takes longer to look up than a remembered file
    def _settings(self) -> Record:
        return {"max_seconds": self.max_seconds, "decoder": decoder()}


def convert(content: bytes, max_seconds: float, blobs: Packs | None = None) -> Record:
    """The measurements of a file, or why it cannot be used; with ``blobs``, its stored waveform."""
    try:
        sound = audio.decode(content, max_seconds)
        pcm16 = audio.to_pcm16(sound)
    except UnusableAudio as error:
        return {"reason": error.reason, "detail": str(error)}
    stored = {"waveform": blobs.add(audio.encode_wav(pcm16))} if blobs else {}
    return stored | asdict(probe(sound, pcm16))


def normalised(path: str) -> str:
    """A path as both sides may write it: accents in one piece, no detours, slashes forward.

    A path that leads out of the folder leads to no name of a file in it.
    """
    return posixpath.normpath(unicodedata.normalize("NFC", path).replace("\\", "/"))


def ward_noises(
    listed: pd.DataFrame, wrong: Faults, reader: AudioReader, evaluation_fraction: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The bank of ward noises, divided into two pools that share no noise.

    Parameters
    ----------
    listed : DataFrame of str
        ``file_path`` and, where given, ``x_pool`` and ``hospital_id``.
    wrong : dict
        Row label to ``(reason, detail)``, of lines that could not be read.
    reader : AudioReader
    evaluation_fraction : float
        Share of the noises kept for evaluation, where the list does not say.

    Returns
    -------
    bank : DataFrame
        The columns of ``BANK``, sorted by ``noise_id``.
    refused : DataFrame
        ``row``, ``reason``, ``detail``.
    """
    nothing = pd.Series(None, index=listed.index, dtype="str")
    given = listed.get("x_pool", nothing)
    faults = wrong | {
        row: ("bad_value", f"x_pool: not one of {', '.join(POOLS)}")
        for row in listed.index[given.notna() & ~given.isin(POOLS)]
    }
    for row in listed.index[listed["file_path"].isna()].difference(list(wrong)):
        faults[row] = ("missing_value", "file_path is required")
    measured, unusable = reader.read_audio(
        listed["file_path"].drop(index=list(faults)), "ward noise"
    )
    faults |= unusable
    for row in measured.index[measured["audio_sha256"].duplicated()]:
        faults[row] = ("duplicate_audio", "an earlier row has the same audio")
    bank = measured.drop(index=[row for row in faults if row in measured.index])
    bank["noise_id"] = "noise-" + bank["audio_sha256"].str[:16]
    bank["pool"] = pools(bank["audio_sha256"], given.reindex(bank.index), evaluation_fraction)
    refused = pd.DataFrame(
        [(row, *faults[row]) for row in sorted(faults)], columns=["row", "reason", "detail"]
    ).astype({"row": "int64", "reason": "str", "detail": "str"})
    sites = listed.get("hospital_id", nothing).reindex(bank.index)
    bank["hospital_id"] = sites.where(sites.str.fullmatch(SITE_NAME).fillna(False).astype(bool))
    return bank[[*BANK]].sort_values("noise_id", ignore_index=True), refused


def pools(sha256: pd.Series, given: pd.Series, evaluation_fraction: float) -> pd.Series:
    """The pool of every noise: the one given, else one by a hash of the content.

    So a noise keeps its pool as the bank grows.  Where the hash leaves a pool empty, the noise
    that is nearest to it goes there: evaluating on no noise at all would show nothing.
    """

    def place(text: str) -> float:
        digest = hashlib.sha256(b"spira.noise-pool/1\0" + text.encode()).digest()
        return int.from_bytes(digest[:8]) / 2**64

    free = sha256[given.isna()].map(place).sort_values()
    by_hash = (free < evaluation_fraction).map({True: "evaluation", False: "train"}).astype("str")
    result = given.fillna(by_hash).astype("str")
    for pool, nearest in (("evaluation", 0), ("train", -1)):
        if len(result) > 1 and len(free) and pool not in set(result):
            result[free.index[nearest]] = pool
    return result
