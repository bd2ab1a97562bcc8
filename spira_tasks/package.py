"""The files of a registered model: kept in the store, and what MLflow has compared with them.

Anyone who may write MLflow's artifacts could change the weights of a model, or add code to it, and
MLflow executes what it loads.  So the files are stored as an artifact before MLflow gets them, a
sealed tag of the version holds its digest, and what is loaded is the store's copy, once MLflow's
is known to be the same, file by file (ADR 23).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spira_tasks import scratch
from spira_tasks.artifacts import Store, sealed
from spira_tasks.artifacts.blobs import digest_of_file
from spira_tasks.contract.place import COMMAND
from spira_tasks.contract.seal import Finding
from spira_tasks.errors import ArtifactCorrupt, ConfigError
from spira_tasks.speech.networks import NETWORKS
from spira_tasks.speech.strategies import STRATEGIES

if TYPE_CHECKING:
    import pandas as pd

    from spira_tasks.registry import Registry
    from spira_tasks.tracking import Registered, Tracker

log = logging.getLogger(__name__)

PACKAGE, SEAL = "spira.package", "spira.package_seal"  # tags of a version
DATA = Path("data", "classifier")  # where a package has the files of its classifier
CLASSIFIER_FILE = "classifier.json"  # among those files
GOLDEN, GOLDEN_FILE = "golden", "golden.json"  # folder beside the classifier, and its index
# Variables of the environment of a process in which a model answers.  It answers in one thread:
# more processes use more cores better.  Freed memory is used again: by default glibc returns every
# large tensor to the kernel and faults its pages in anew, which takes 1.2 times as much CPU.
ENVIRONMENT = {
    # A compiled file beside the registered ones would be one that somebody added.
    "PYTHONDONTWRITEBYTECODE": "1",
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TOP_PAD_": str(2**26),
}
TOLERANCE = 1e-5  # of a probability, between two places where one model answers


class Refused(ConfigError):
    """The files of a version are not those that were registered, or not enough to serve it."""


def tags_of(classifier: str, package: str) -> dict[str, str]:
    """The tags by which ``check`` finds the files of a version made from a classifier."""
    return {PACKAGE: package, SEAL: sealed.seal_of(classifier, package.encode())}


def check(version: Registered, tracker: Tracker, store: Store) -> None:
    """Compare every file that MLflow has of a version with the store; load nothing.

    Raises
    ------
    ConfigError
        When a file was changed, added or removed, or the version has no valid seal.
    """
    package, finding = version.tags.get(PACKAGE, ""), _finding(version)
    if finding != "whole":
        raise _refused(version, f"the digest of its files in MLflow's tags is {finding}")
    known = store.files(package)
    if not known:
        raise _refused(version, f"its files, {package}, are not in the store {store.url}")
    with scratch.folder() as folder:
        found = files_of(_downloaded(version, tracker, folder))
    for name in sorted({*known, *found}):
        if name not in found:
            raise _refused(version, f"MLflow has lost its file {name}")
        if name not in known:
            raise _refused(version, f"MLflow has a file that was not registered: {name}")
        if found[name] != known[name]:
            raise _refused(version, f"MLflow's {name} is not the file that was registered")


def _downloaded(version: Registered, tracker: Tracker, folder: Path) -> Path:
    """MLflow's files of a version, without what Python compiled when they were loaded there.

    Nobody here runs what was compiled: the store's copy, which is what is loaded, has none.
    """
    files, n_compiled = tracker.download(version, folder), 0
    for compiled in files.rglob("__pycache__/*.pyc"):
        if (compiled.parent.parent / f"{compiled.name.partition('.')[0]}.py").is_file():
            compiled.unlink()
            n_compiled += 1
    if n_compiled:
        log.warning(
            "MLflow has %d compiled files beside the code of version %s, which are not compared; "
            "delete them: a program that loads the model from MLflow itself runs them",
            n_compiled,
            version.version,
        )
    return files


def is_sealed(version: Registered) -> bool:
    """Whether a version tells which files it has; they are not compared."""
    return _finding(version) == "whole"


def adopt(version: Registered, tracker: Tracker, store: Store) -> bool:
    """Seal the files that MLflow has of a version now; only where its classifier is the store's.

    The code beside the classifier is taken as it is: a person says that it may be.
    """
    with scratch.folder() as folder:
        files = _downloaded(version, tracker, folder)
        known = store.files(version.classifier)
        if not known or not set(known.values()) <= set(files_of(files).values()):
            return False
        tracker.tag(version.version, tags_of(version.classifier, store.put_directory(files)))
    return True


def load(version: Registered, tracker: Tracker, store: Store, folder: Path) -> Any:
    """Load a version whose files were checked; they are put into ``folder``.

    The folder has to stay while the model is used: its code may be imported late.  Returns what
    MLflow's server makes of the same files, and raises as ``fetch`` does.
    """
    fetch(version, tracker, store, folder)
    return tracker.load(folder)


def fetch(version: Registered, tracker: Tracker, store: Store, folder: Path) -> None:
    """Check a version, and put the store's copy of its files into ``folder``; load nothing.

    Raises
    ------
    ConfigError
        As ``check`` does, when the store's copy is damaged, or when a package that its network or
        its feature is of is not installed.
    """
    check(version, tracker, store)
    try:
        store.directory(version.tags[PACKAGE]).copy_to(folder)
    except ArtifactCorrupt as error:  # no step makes these files again
        raise _refused(version, f"its files in the store are damaged: {error}") from error
    if (file := folder / DATA / CLASSIFIER_FILE).is_file():  # older ones are of us alone
        try:
            for registry, name, implementation in _parts(json.loads(file.read_text())):
                registry.require(name, implementation)
        except ConfigError as error:
            number = version.version
            raise Refused(f"version {number} of the model is not loaded: {error}") from error


def requirements(classifier: Path) -> list[str]:
    """``name==version`` of each package that the network or the feature of a classifier is of.

    Parameters
    ----------
    classifier : Path
        Folder with ``classifier.json``.
    """
    parts = _parts(json.loads((classifier / CLASSIFIER_FILE).read_text()))
    named = {tuple(implementation.split(" ")[:2]) for *_, implementation in parts if implementation}
    return sorted("==".join(one) for one in named)


def _parts(spec: Mapping[str, Any]) -> list[tuple[Registry[Any], str, str]]:
    """Registry, name and implementation of what a classifier is made of."""
    features = spec["features"]
    return [
        (NETWORKS, spec["model"], spec.get("implementation", "")),
        (STRATEGIES, features["name"], features.get("implementation", "")),
    ]


def score(model: Any, waveform: bytes) -> pd.DataFrame:
    """Probability and operating point that a loaded model gives a stored waveform.

    The probability is NaN where the model gives none.
    """
    import pandas as pd

    answer = model.predict(pd.DataFrame({"audio": [waveform]}))
    return answer[["probability", "operating_point"]].astype("float64")


@dataclass(frozen=True)
class Clip:
    """An audio file that travels with a model, and what the model says of it."""

    name: str
    content: bytes
    audio_seconds: float
    answer: Mapping[str, Any]  # as ``predict`` of the model gives it for one row


@dataclass(frozen=True)
class Golden:
    """By what a loaded model shows that it answers as it did when it was registered, and as fast.

    ``limits`` are those of ``expectations/requirements.yaml`` at registration, by name.
    """

    clips: tuple[Clip, ...]
    limits: Mapping[str, float]

    def differences(self, answers: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
        """Clip and field of everything in which answers to ``clips`` are not those expected.

        Numbers may differ by ``TOLERANCE``, nothing else may differ.
        """
        return [
            (clip.name, field)
            for clip, given in zip(self.clips, answers, strict=True)
            for field, expected in clip.answer.items()
            if field not in given or not _same(expected, given[field])
        ]


def golden(folder: Path) -> Golden:
    """Read the golden clips of a package, which may have been loaded or not.

    Raises
    ------
    Refused
        When it has none.
    """
    place = folder / DATA / GOLDEN
    if not (place / GOLDEN_FILE).is_file():
        raise Refused(
            f"the model in {folder} has no golden clips, by which a worker checks it before it "
            "serves: run its pipeline again, which registers it anew"
        )
    found = json.loads((place / GOLDEN_FILE).read_text())
    clips = tuple(
        Clip(
            clip["name"], (place / clip["name"]).read_bytes(), clip["audio_seconds"], clip["answer"]
        )
        for clip in found["clips"]
    )
    return Golden(clips, found["limits"])


def _same(expected: object, given: object) -> bool:
    if isinstance(expected, list):
        return (
            isinstance(given, list)
            and len(given) == len(expected)
            and all(map(_same, expected, given))
        )
    if isinstance(expected, float):
        return isinstance(given, float) and abs(given - expected) <= TOLERANCE  # NaN is not
    return type(given) is type(expected) and given == expected


def files_of(folder: Path) -> Mapping[str, str]:
    """Digests of the files below a folder, by relative name."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest_of_file(path) for path in files}


def _finding(version: Registered) -> Finding:
    package = version.tags.get(PACKAGE, "")
    return sealed.check(version.classifier, package.encode(), version.tags.get(SEAL))


def _refused(version: Registered, why: str) -> Refused:
    number = version.version
    return Refused(
        f"version {number} of the model is not loaded: {why}. Find out who changed it. Then refuse "
        f'it: {COMMAND} model refuse {number} --why "…"; or delete the version on '
        "MLflow's page and run its pipeline again, which registers the model anew from the store"
    )
