"""Retention: what is over goes, what something needs stays, and nothing goes unlogged."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
from conftest import Run
from erasing import erase, fill, table
from folders import Cohort
from in_use import put_into_use

from spira_tasks.artifacts import Store
from spira_tasks.cli import main
from spira_tasks.contract.pipelines import RETENTION
from spira_tasks.errors import ArtifactCorrupt, ConfigError
from spira_tasks.governance import audit, decisions, inventory, retention
from spira_tasks.governance.verification import verify
from spira_tasks.intake.pseudonyms import tombstone_tag
from spira_tasks.runner import run_step
from spira_tasks.tracking import Tracker

DAY = 86_400
POLICY = {
    "CHART": 7300,
    "RESEARCH": 1000,
    "DERIVED": 100,
    "QUARANTINE": 50,
    "CHECKPOINTS": 10,
    "DAMAGED": 20,
    "RECORDS": 3000,
}


def write_policy(
    place: Path, *, keep: str = "all", hold: str = "", days: Mapping[str, int] = POLICY
) -> str:
    lines = [f'owner = "nobody yet"\nkeep_for_models = "{keep}"']
    lines += [f"[{kind}]\ndays = {n}" for kind, n in {**POLICY, **days}.items()]
    place.write_text("\n".join([*lines, f"[legal_hold]\n{hold}"]))
    return str(place)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    cohort = Cohort(folder / "data", n_rows=6)
    for row in cohort.rows:
        row["retention_until"] = "2031-01-01" if row["record_id"] < "r004" else "2027-06-30"
    fill(Store(str(folder / "store")), cohort.write())
    return folder / "store"


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> Store:
    shutil.copytree(filled, tmp_path / "store")
    return Store(str(tmp_path / "store"))


def sweep(store: Store, policy: str, days_later: float) -> retention.Plan:
    """Apply a policy as it would be applied on a later day."""
    rules = retention.read_policy(store, policy)
    now = time.time() + days_later * DAY
    made = retention.plan(store, rules, now)
    retention.apply(store, made, rules)
    return made


def kinds(made: retention.Plan) -> set[str]:
    return {item.kind for item in made.items}


def names(store: Store) -> set[str]:
    return {entry.name for entry in store.entries("")}


def test_the_scheduled_step_counts_until_a_person_adopts_a_policy_and_then_removes(
    store: Store, tmp_path: Path
) -> None:
    (step,) = RETENTION
    old = Path(store.url) / "checkpoints" / "abandoned"
    old.parent.mkdir(exist_ok=True)
    old.write_bytes(b"weights")
    os.utime(old, (time.time() - 20 * DAY,) * 2)
    counted = run_step(step, "sunday", store).metrics
    assert counted == {"adopted": 0, "n_items": 1, "n_bytes": 7}
    assert old.exists()
    retention.adopt_policy(store, write_policy(tmp_path / "p.toml"), "signed on paper, folder 12")
    assert run_step(step, "next-sunday", store).metrics == {**counted, "adopted": 1}
    assert not old.exists()
    assert [*audit.events(store)][-1].action == "retention"


def test_nothing_young_goes_whatever_the_policy_says(store: Store, tmp_path: Path) -> None:
    """A step may be at work on it: two days is longer than the longest step."""
    strict = write_policy(tmp_path / "p", days=dict.fromkeys(POLICY, 1))
    store.blobs.put(b"a waveform that no table names yet")
    before = names(store)
    sweep(store, strict, 1.5)
    assert names(store) == before


def test_each_class_goes_in_its_time(store: Store, tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "p")
    features = table(store, "features", "materialize")["features"]
    waveforms = table(store, "recordings")["waveform"]
    assert kinds(sweep(store, policy, 40)) == set()
    assert kinds(sweep(store, policy, 60)) == {"QUARANTINE"}
    assert kinds(sweep(store, policy, 150)) == {"DERIVED", "GARBAGE"}  # matrices: no table is left
    assert not any(store.blobs.exists(digest) for digest in features)
    assert all(store.blobs.exists(digest) for digest in waveforms)
    sweep(store, policy, 1100)
    assert not any(store.blobs.exists(digest) for digest in waveforms)
    assert store.runs.ids() == ["r"]  # who was refused, when, by what: still shown
    sweep(store, policy, 3100)
    assert store.runs.ids() == []
    assert {name.partition("/")[0] for name in names(store)} <= {"audit", "memo"}


def test_zero_days_means_never(store: Store, tmp_path: Path) -> None:
    sweep(store, write_policy(tmp_path / "p", days=dict.fromkeys(POLICY, 0)), 200)
    assert len(table(store, "features", "materialize")) == 3


def test_what_a_run_used_lately_stays(store: Store, tmp_path: Path) -> None:
    """A result that is found again is in use, however old it is."""
    policy = write_policy(tmp_path / "p")
    for path in Path(store.url).rglob("*"):
        if path.is_file() and "runs" not in path.parts:
            os.utime(path, (time.time() - 900 * DAY, time.time() - 900 * DAY))
    sweep(store, policy, 0)
    assert len(table(store, "features", "materialize")) == 3


def test_leftovers_go(store: Store, tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "p")
    loose = store.blobs.add(b"a waveform that no table came to name")
    store.blobs.memorize("ab" * 32, {"waveform": loose})
    store.blobs.flush()
    store.checkpoint("cd" * 32).save(b"state")
    damaged = Path(store.url) / "corrupt/blobs/x"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"half")
    assert kinds(sweep(store, policy, 5)) == {"GARBAGE"}
    assert not store.blobs.exists(loose)
    assert store.blobs.recall("ab" * 32) is None
    assert kinds(sweep(store, policy, 15)) == {"CHECKPOINTS"}
    assert kinds(sweep(store, policy, 25)) == {"DAMAGED"}
    assert not damaged.exists()


def test_a_recording_whose_own_time_is_over_leaves_the_tables(store: Store, tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "p", days={"RESEARCH": 0, "DERIVED": 0})
    rows = table(store, "recordings")
    over = rows.loc[rows["retention_until"] == "2027-06-30", "waveform"]
    days = (pd.Timestamp("2027-07-02", tz="UTC") - pd.Timestamp.now("UTC")).days
    sweep(store, policy, days)
    assert set(table(store, "recordings")["record_id"]) == {"r000", "r001", "r002", "r003"}
    assert len(table(store, "features", "materialize")) == 2
    assert not any(store.blobs.exists(digest) for digest in over)


def test_a_legal_hold_wins(store: Store, tmp_path: Path) -> None:
    rows = table(store, "recordings")
    subject = str(rows["subject_id"].iloc[-1])  # whose own time is over in 2027
    tag = tombstone_tag(subject)
    hold = write_policy(tmp_path / "p", hold=f'subjects = ["{tag}"]')
    sweep(store, hold, 2000)
    left = table(store, "recordings")
    assert subject in set(left["subject_id"])
    assert all(store.blobs.exists(digest) for digest in left["waveform"])
    retention.adopt_policy(store, hold, "a court asked for it")
    with pytest.raises(ConfigError, match="under a legal hold"):
        erase(store, subject)


def test_a_run_under_a_legal_hold_stays_whole(store: Store, tmp_path: Path) -> None:
    before = names(store)
    sweep(store, write_policy(tmp_path / "p", hold='runs = ["r"]'), 2900)
    assert names(store) == before


def test_a_damaged_record_of_a_run_stops_the_plan(store: Store) -> None:
    """It may be what keeps an artifact; it is left where it is, to be restored."""
    record = Path(store.url) / "runs/r/split.json"
    record.chmod(0o644)
    record.write_text("")
    rules = retention.read_policy(store)
    with pytest.raises(ArtifactCorrupt, match=r"runs/r/split\.json .* restore it from a backup"):
        retention.plan(store, rules)
    assert record.exists()


def test_killed_half_way_it_goes_on(store: Store, tmp_path: Path) -> None:
    """Whatever is deleted first, nothing is found whole that is not."""
    policy = write_policy(tmp_path / "p")
    rules = retention.read_policy(store, policy)
    made = retention.plan(store, rules, time.time() + 1100 * DAY)
    for folder in retention.ORDER[:3]:  # killed before a blob went
        for item in made.items:
            if item.name.startswith(f"{folder}/"):
                store.delete(item.name)
    sweep(store, policy, 1100)
    assert store.entries("blobs") == []
    assert store.entries("trees") == []


def test_the_log_and_the_decisions_are_never_touched(store: Store, tmp_path: Path) -> None:
    decisions.decide(store, "erasures", {"tag": "ab" * 16}, "asked for it in writing")
    sweep(store, write_policy(tmp_path / "p"), 5000)
    assert verify(store).problems == []
    assert len(decisions.known(store, "erasures")) == 1
    last = [*audit.events(store)][-1]
    assert last.action == "retention"
    assert last.details["what"][0]["n_bytes"] > 0


def test_a_table_that_was_redacted_is_kept_and_goes_like_any_other(
    store: Store, tmp_path: Path
) -> None:
    erase(store, str(table(store, "recordings")["subject_id"].iloc[0]))
    policy = write_policy(tmp_path / "p")
    sweep(store, policy, 60)
    assert len(table(store, "recordings")) == 4
    sweep(store, policy, 1100)
    assert inventory.redactions(store) == {}
    assert store.entries("blobs") == []


def test_what_a_registered_model_came_from_stays(finished: Run, tmp_path: Path) -> None:
    place = tmp_path / "store"
    shutil.copytree(finished.store.url, place)
    store = Store(str(place))
    sweep(store, write_policy(tmp_path / "p"), 2000)
    rows = table(store, "recordings", "split", finished.run_id)
    assert all(store.blobs.exists(digest) for digest in rows["waveform"])
    served = write_policy(tmp_path / "q", keep="served")
    made = sweep(store, served, 2000)  # it is the challenger
    assert "RESEARCH" not in kinds(made)
    tracker = Tracker(store.tracking_uri)
    tracker.tag("1", {"spira.was_champion": "true", "spira.outcome": "blocked"})
    put_into_use(tracker, "1")
    assert main(["model", "refuse", "1", "--why", "misses too many", "--store", store.url]) == 0
    assert not tracker.versions()[0].aliases
    made = sweep(store, served, 2000)  # it has served: what it came from is asked for longest
    assert "RESEARCH" not in kinds(made)


def test_the_commands_plan_and_apply(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.checkpoint("cd" * 32).save(b"state")
    old = Path(store.url) / f"checkpoints/{'cd' * 32}.safetensors"
    size = old.stat().st_size
    os.utime(old, (time.time() - 30 * DAY, time.time() - 30 * DAY))
    policy, where = write_policy(tmp_path / "p"), ["--store", store.url]
    before = names(store)
    assert main(["retention", "plan", "--policy", policy, *where]) == 0
    assert "not used for 10 days" in capsys.readouterr().out
    assert main(["retention", "plan", *where]) == 0
    assert "of the package: none was adopted" in capsys.readouterr().out
    assert names(store) == before
    assert main(["retention", "adopt", policy, "--why", "ok", *where]) == 78
    assert "written reason" in capsys.readouterr().err
    assert main(["retention", "adopt", policy, "--why", "signed, folder 12", *where]) == 0
    assert [*audit.events(store)][-1].action == "policy"
    capsys.readouterr()
    assert main(["retention", "apply", "--json", *where]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [(row["class"], row["n"], row["n_bytes"]) for row in shown["classes"]] == [
        ("CHECKPOINTS", 1, size)
    ]
    assert not old.exists()
    assert main(["retention", "plan", *where]) == 0
    out = capsys.readouterr().out
    assert "nothing" in out
    assert "policy: adopted by" in out
    (Path(store.url) / "decisions/retention.json").unlink()
    assert main(["retention", "apply", *where]) == 78
    assert "adopt the policy again" in capsys.readouterr().err


def test_a_policy_that_says_nonsense_is_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    assert retention.read_policy(store).days["RESEARCH"] == 1825  # comes with the platform
    wrong = write_policy(tmp_path / "p", keep="none", days={"DERIVED": -1})
    with pytest.raises(
        ConfigError, match=r"keep_for_models: .*'all' or 'served'; DERIVED\.days: .*equal to 0"
    ):
        retention.read_policy(store, wrong)
    with pytest.raises(ConfigError, match=r"DERIVED\.days: "):
        retention.adopt_policy(store, wrong, "signed, folder 12")
    assert retention.read_policy(store).source.startswith("of the package")
    (tmp_path / "p").write_text("RESEARCH = ")
    with pytest.raises(ConfigError, match="is not TOML"):
        retention.read_policy(store, str(tmp_path / "p"))
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        retention.read_policy(store, str(tmp_path / "nowhere"))
