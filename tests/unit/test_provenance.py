"""What a key depends on, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from spira_tasks import provenance
from spira_tasks.provenance import code_digest, project_sources, result_key

STAGES = sorted(
    path.stem
    for path in (provenance.ROOT / "spira_tasks" / "stages").glob("*.py")
    if path.stem != "__init__"
)


def test_the_key_is_the_same_on_every_machine() -> None:
    """Changing the formula forgets every result there is: that is a decision, not an accident."""
    key = result_key("split", "c0de", "10c4", {"recordings": "sha256:00"}, {"salt": "a"})
    assert key == "4665365ed51d081ae47550d0c405450ea0c6b0880cbaf61056a602c54209f909"


def test_everything_that_makes_a_result_is_in_its_key() -> None:
    parts = ("split", "c0de", "10c4", {"recordings": "sha256:00"}, {"salt": "a"})
    others = ("train", "c0df", "10c5", {"recordings": "sha256:01"}, {"salt": "b"})
    keys = {result_key(*parts)}
    for position, other in enumerate(others):
        changed = list(parts)
        changed[position] = other
        keys.add(result_key(*changed))  # type: ignore[arg-type]
    assert len(keys) == 6


# About the store and its runs, and computed every time: their keys name nothing that is found.
OF_GOVERNANCE = {"drift", "erase", "report"}


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
    assert "expectations.promotion" in project_sources("spira_tasks.stages.promote")
    assert "expectations.audio" in project_sources("spira_tasks.stages.validate")


def test_editing_a_comment_elsewhere_changes_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def digests() -> dict[str, str]:
        code_digest.cache_clear()
        return {stage: code_digest(f"spira_tasks.stages.{stage}") for stage in STAGES}

    read = Path.read_bytes
    before = digests()
    monkeypatch.setattr(
        Path,
        "read_bytes",
        lambda path: read(path) + (b"# edited\n" if path.name == "plots.py" else b""),
    )
    after = digests()
    code_digest.cache_clear()
    assert [stage for stage in STAGES if before[stage] != after[stage]] == ["evaluate"]


def test_a_comment_in_the_lock_file_changes_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(text: str) -> str:
        (tmp_path / "lock.txt").write_text(text)
        monkeypatch.setattr(provenance, "LOCK_FILE", tmp_path / "lock.txt")
        provenance.lock_digest.cache_clear()
        return provenance.lock_digest()

    try:
        assert digest("a==1\nb==2\n") == digest("# why\nb==2  # because\n\na==1\n")
        assert digest("a==1\nb==2\n") != digest("a==1\nb==3\n")
    finally:
        provenance.lock_digest.cache_clear()
