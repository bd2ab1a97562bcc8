"""What a key depends on, and what it does not."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from spira_tasks import provenance
from spira_tasks.errors import ConfigError
from spira_tasks.provenance import (
    code_digest,
    lock_digest,
    package_versions,
    packages_digest,
    project_sources,
    result_key,
)

STAGES = sorted(
    path.stem
    for path in (provenance.ROOT / "spira_tasks" / "stages").glob("*.py")
    if path.stem != "__init__"
)


def test_the_key_is_the_same_on_every_machine() -> None:
    """Changing the formula forgets every result there is: that is a decision, not an accident."""
    key = result_key("split", "c0de", "9ac4", {"recordings": "sha256:00"}, {"salt": "a"})
    assert key == "7b31b12ecae176efbaadaec269b6e0fddd13231918529d92451f95db300b202a"


def test_everything_that_makes_a_result_is_in_its_key() -> None:
    parts = ("split", "c0de", "9ac4", {"recordings": "sha256:00"}, {"salt": "a"})
    others = ("train", "c0df", "9ac5", {"recordings": "sha256:01"}, {"salt": "b"})
    keys = {result_key(*parts)}
    for position, other in enumerate(others):
        changed = list(parts)
        changed[position] = other
        keys.add(result_key(*changed))  # type: ignore[arg-type]
    assert len(keys) == 6


# About the store and its runs, and computed every time: their keys name nothing that is found.
OF_GOVERNANCE = {"decide", "drift", "erase", "promote", "register", "report", "retain", "rollback"}


def test_a_stage_that_sees_the_store_is_computed_every_time() -> None:
    for stage in OF_GOVERNANCE:
        assert importlib.import_module(f"spira_tasks.stages.{stage}").SPEC.outside


@pytest.mark.parametrize("stage", sorted({*STAGES} - OF_GOVERNANCE))
def test_the_source_of_a_stage_is_what_it_runs_and_no_infrastructure(stage: str) -> None:
    sources = set(project_sources(f"spira_tasks.stages.{stage}"))
    assert f"spira_tasks.stages.{stage}" in sources
    assert not [
        name for name in sources if name.startswith("spira_tasks.stages.") and name[19:] != stage
    ]
    assert not sources & {"spira_tasks.runner", "spira_tasks.cli", "spira_tasks.artifacts"}


def test_the_code_digest_notices_every_edit_that_can_change_a_stage() -> None:
    assert "spira_tasks.speech.features" in project_sources("spira_tasks.stages.materialize")
    assert "spira_tasks.speech.training" in project_sources("spira_tasks.stages.train")
    assert "spira_tasks.speech.training" not in project_sources("spira_tasks.stages.split")
    assert "expectations.gates.model" in project_sources("spira_tasks.stages.promote")
    assert "expectations.suites.audio" in project_sources("spira_tasks.stages.validate")


Edit = Callable[[str, str], None]  # the name of a file, what is added to it


@pytest.fixture
def edit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Edit]:
    """Add to what a source file says, without writing it."""
    read = Path.read_bytes

    def add(name: str, text: str) -> None:
        monkeypatch.setattr(
            Path,
            "read_bytes",
            lambda path: read(path) + (text.encode() if path.name == name else b""),
        )
        provenance._read.cache_clear()

    yield add
    monkeypatch.undo()
    provenance._read.cache_clear()


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Use another text as the lock file."""

    def use(text: str) -> None:
        file = tmp_path / f"{len([*tmp_path.iterdir()])}.txt"
        file.write_text(text)
        monkeypatch.setattr(provenance, "LOCK_FILE", file)

    return use


LOCK = provenance.LOCK_FILE.read_text()


def changed(digest: Callable[[str], str], change: Callable[[], None]) -> list[str]:
    before = {stage: digest(f"spira_tasks.stages.{stage}") for stage in STAGES}
    change()
    return [stage for stage in STAGES if digest(f"spira_tasks.stages.{stage}") != before[stage]]


def test_editing_a_module_changes_the_keys_of_what_imports_it_alone(edit: Edit) -> None:
    assert changed(code_digest, lambda: edit("plots.py", "# edited\n")) == ["evaluate"]


def test_an_import_of_another_package_changes_the_keys_of_what_imports_it_alone(edit: Edit) -> None:
    text = "def use() -> None:\n    import librosa\n"
    assert changed(packages_digest, lambda: edit("plots.py", text)) == ["evaluate"]


def test_an_import_for_types_changes_no_packages(edit: Edit) -> None:
    text = "if TYPE_CHECKING:\n    import librosa\n"
    assert changed(packages_digest, lambda: edit("plots.py", text)) == []


def test_a_package_that_no_stage_imports_changes_no_key(lock: Callable[[str], None]) -> None:
    before = lock_digest()
    more = "queue-client==1.0\n    # via -r docker/tasks.in\n"
    assert changed(packages_digest, lambda: lock(more + LOCK)) == []
    assert lock_digest() != before


@pytest.mark.parametrize(
    ("package", "stages", "others"),
    [
        ("torch", {"train", "evaluate", "materialize", "validate"}, {"ingest", "split"}),
        ("mlflow", {"register", "promote"}, {"train", "evaluate", "ingest", "split"}),
        ("great-expectations", {"validate"}, {"train", "evaluate", "ingest", "split"}),
        ("matplotlib", {"evaluate"}, {"train", "ingest", "split"}),
        ("scikit-learn", {"evaluate"}, {"train", "ingest", "split"}),
        ("pyarrow", {"ingest", "split", "train"}, set()),  # pandas loads it
        ("mpmath", {"train"}, {"ingest", "split"}),  # torch requires sympy, which requires it
    ],
)
def test_another_version_of_a_package_changes_the_keys_of_what_imports_it_alone(
    package: str, stages: set[str], others: set[str], lock: Callable[[str], None]
) -> None:
    text = re.sub(rf"(?m)^{package}==[^ ]+$", f"{package}==0.0.1", LOCK)
    assert text != LOCK
    found = {*changed(packages_digest, lambda: lock(text))}
    assert found >= stages
    assert not found & others


def test_comments_hashes_and_the_order_of_a_lock_file_change_no_key(
    lock: Callable[[str], None],
) -> None:
    more = r"\1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:01"
    hashes = re.sub(r"(?m)^(\S+==\S+)$", more, LOCK)
    assert changed(packages_digest, lambda: lock(f"# why\n\n{hashes}")) == []
    assert changed(packages_digest, lambda: lock(LOCK)) == []
    blocks = re.split(r"(?m)^(?=[A-Za-z])", LOCK)
    assert changed(packages_digest, lambda: lock("".join(reversed(blocks)))) == []


def test_a_package_without_a_pin_is_an_error(lock: Callable[[str], None]) -> None:
    lock(re.sub(r"(?m)^torch==.*$", "", LOCK))
    with pytest.raises(ConfigError, match=r"imports torch, which .* does not have"):
        package_versions("spira_tasks.stages.train")


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_installed_agrees_with_what_the_lock_file_says_of_a_stage(stage: str) -> None:
    """So the key holds what runs; and no requirement is missed that the metadata name."""
    versions = package_versions(f"spira_tasks.stages.{stage}")
    assert versions.pop("python") == "3.11"
    locked = provenance._lock(provenance.LOCK_FILE).versions
    for name, version in versions.items():
        assert metadata.version(name).partition("+")[0] == version
        for text in metadata.requires(name) or ():
            required = Requirement(text)
            is_asked = required.marker is None or required.marker.evaluate({"extra": ""})
            if is_asked and (other := provenance._normalised(required.name)) in locked:
                assert other in versions, f"{name} requires {other}"


def test_every_module_is_looked_for_in_the_distribution_that_installs_it() -> None:
    installed = metadata.packages_distributions()
    packages = {
        package
        for stage in STAGES
        for module in provenance._closure(f"spira_tasks.stages.{stage}").values()
        for package in module.packages
    }
    assert len(packages) > 15
    for package in packages:
        name = provenance._normalised(provenance.DISTRIBUTIONS.get(package, package))
        assert name in {provenance._normalised(each) for each in installed[package]}
