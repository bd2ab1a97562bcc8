"""Pseudonyms: their key is nowhere to be found, and replacing it moves nobody."""

from __future__ import annotations

import io
import json
import logging
import re
import stat
import sys
from pathlib import Path

import pandas as pd
import pytest
from folders import AS_OF, Cohort, Ingested, cohort, voice

from spira_tasks.artifacts import Store
from spira_tasks.cli import main
from spira_tasks.errors import ConfigError
from spira_tasks.governance import audit, decisions
from spira_tasks.intake import pseudonyms
from spira_tasks.intake.pseudonyms import tombstone_tag
from spira_tasks.provenance import ROOT
from spira_tasks.stages import split

__all__ = ["cohort"]

OLD, NEW, NEWEST = ("5f2b" * 16, "a9c4" * 16, "77d1" * 16)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("SPIRA_PSEUDONYM_KEY", OLD)
    monkeypatch.setenv("SPIRA_STORE", str(tmp_path / "store"))
    return Store(str(tmp_path / "store"))


def rotate(
    patch: pytest.MonkeyPatch, data: str, out: Path, *more: str, old: str = OLD, new: str = NEW
) -> int:
    """What an operator does: make the map, then let ingest have the new key and the map."""
    patch.setenv("SPIRA_PSEUDONYM_KEY_OLD", old)
    patch.setenv("SPIRA_PSEUDONYM_KEY", new)
    status = main(["pseudonyms", "rotate", "--data", data, "--out", str(out), *more])
    patch.delenv("SPIRA_PSEUDONYM_KEY_OLD")
    if status == 0:
        patch.setenv("SPIRA_PSEUDONYM_MAP", str(out))
    return status


def subjects(made: Ingested) -> dict[str, str]:
    table = made.table("recordings")
    return dict(zip(table["record_id"], table["subject_id"], strict=True))


def test_the_hospital_is_the_salt() -> None:
    """A table of all numbers that somebody made for one hospital says nothing of another."""
    secret = OLD.encode()
    ids = {pseudonyms.subject_id(secret, site, "1234567A") for site in ("a", "b", "c")}
    assert len(ids) == 3
    assert pseudonyms.subject_id(secret, "a", "b1") != pseudonyms.subject_id(secret, "ab", "1")
    assert pseudonyms.subject_id(secret, "a", "7a") == pseudonyms.subject_id(secret, "a", "7A")


def test_nobody_changes_sides_when_the_key_is_replaced_twice(
    cohort: Cohort, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = cohort.write()
    first = subjects(Ingested(data, store))
    assert rotate(monkeypatch, data, tmp_path / "map-1.json") == 0
    cohort.add(12)  # somebody who came under the second key
    data = cohort.write()
    second = subjects(Ingested(data, store, run_id="r2"))
    assert {record: second[record] for record in first} == first
    assert second["r012"] not in first.values()
    assert second["r012"] == pseudonyms.subject_id(NEW.encode(), "site-a", "1234573A")
    assert rotate(monkeypatch, data, tmp_path / "map-2.json", old=NEW, new=NEWEST) == 0
    third = subjects(Ingested(data, store, run_id="r3"))
    assert third == second
    sides = {record: split.side(subject, split.Config()) for record, subject in third.items()}
    assert len(set(sides.values())) > 1
    assert "rotation" in [event.action for event in audit.events(store)]


def test_without_the_map_they_would_be_strangers_so_its_loss_is_an_error(
    cohort: Cohort, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = cohort.write()
    first = subjects(Ingested(data, store))
    assert rotate(monkeypatch, data, tmp_path / "map.json") == 0
    kept = (tmp_path / "map.json").read_text()
    (tmp_path / "map.json").unlink()
    with pytest.raises(ConfigError, match="would be a stranger"):
        Ingested(data, store, run_id="r2")
    (tmp_path / "map.json").write_text(kept)
    (tmp_path / "map.json").chmod(0o644)
    with pytest.raises(ConfigError, match="open to everybody"):
        Ingested(data, store, run_id="r2")
    (tmp_path / "map.json").chmod(0o600)
    monkeypatch.setenv("SPIRA_PSEUDONYM_KEY", NEWEST)
    with pytest.raises(ConfigError, match="was made for the key"):
        Ingested(data, store, run_id="r2")
    monkeypatch.setenv("SPIRA_PSEUDONYM_KEY", NEW)
    monkeypatch.delenv("SPIRA_PSEUDONYM_MAP")
    strangers = Ingested(data, store, run_id="r2")  # what the map is there to prevent
    assert not set(subjects(strangers).values()) & set(first.values())


def test_a_tombstone_holds_after_the_key_was_replaced(
    cohort: Cohort, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = cohort.write()
    erased = subjects(Ingested(data, store))["r000"]
    decisions.decide(store, "erasures", {"tag": tombstone_tag(erased)}, "asked for it in writing")
    assert rotate(monkeypatch, data, tmp_path / "map.json") == 0
    again = Ingested(data, store, run_id="r2", max_quarantine_fraction=1.0)
    assert erased not in subjects(again).values()
    assert list(again.table("quarantine")["reason"]) == ["erased", "erased"]


def test_who_was_erased_and_left_the_folder_is_not_let_in_again_by_a_rotation(
    cohort: Cohort,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No map is made that leaves them out; the hospital's list with their number covers them."""
    data = cohort.write()
    erased = subjects(Ingested(data, store))["r000"]
    decisions.decide(store, "erasures", {"tag": tombstone_tag(erased)}, "asked for it in writing")
    rows = cohort.rows[:2]
    del cohort.rows[:2]
    data, out = cohort.write(), tmp_path / "map.json"
    assert rotate(monkeypatch, data, out) == 78
    assert "1 of the people who were erased are in none of these" in capsys.readouterr().err
    assert not out.exists()

    listed = tmp_path / "erased.csv"
    pd.DataFrame(rows)[["patient_rgh", "hospital_id"]].to_csv(listed, index=False)
    assert rotate(monkeypatch, data, out, "--list", str(listed)) == 0
    cohort.rows[:0] = rows
    again = Ingested(cohort.write(), store, run_id="r2", max_quarantine_fraction=1.0)
    assert set(subjects(again)) == {f"r{number:03d}" for number in range(2, 12)}
    assert list(again.table("quarantine")["reason"]) == ["erased", "erased"]


def test_a_rotation_that_leaves_erased_people_out_is_accepted_in_so_many_words_and_logged(
    cohort: Cohort,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tag = tombstone_tag("ab" * 32)
    decisions.decide(store, "erasures", {"tag": tag}, "asked for it in writing")
    data, out = cohort.write(), tmp_path / "map.json"
    assert rotate(monkeypatch, data, out, "--uncovered-erasures-accepted") == 0
    assert "they will be taken in when they come again" in capsys.readouterr().err
    (event,) = [event for event in audit.events(store) if event.action == "rotation"]
    assert (event.details["n_people"], event.details["n_uncovered_erasures"]) == (6, 1)
    decisions.withdraw(store, "erasures", {"tag": tag}, "the hospital mixed up two people")
    assert rotate(monkeypatch, data, tmp_path / "map-2.json", old=NEW, new=NEWEST) == 0


def test_tombstones_of_pseudonyms_that_no_key_made_hold_too(
    cohort: Cohort, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for row in cohort.rows[:2]:
        row |= {"patient_rgh": "", "patient_pid": "cd" * 32}
    data = cohort.write()
    Ingested(data, store)
    tag = tombstone_tag("cd" * 32)
    decisions.decide(store, "erasures", {"tag": tag}, "asked for it in writing")
    out = tmp_path / "map.json"
    assert rotate(monkeypatch, data, out) == 0
    assert "cd" * 32 not in out.read_text()
    again = Ingested(data, store, run_id="r2", max_quarantine_fraction=1.0)
    assert list(again.table("quarantine")["reason"]) == ["erased", "erased"]


def test_tombstones_of_the_published_data_hold_where_the_name_of_the_file_tells_the_person(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is known by the content of a file alone is counted, so that it is not overlooked."""
    folder = tmp_path / "published"
    folder.mkdir()
    names = ["0123456789abcdef_1.wav", "0123456789abcdef_2.wav", "fedcba9876543210_1.wav", "v.wav"]
    for number, name in enumerate(names):
        (folder / name).write_bytes(voice(number))
    lines = "".join(f"{name},{number % 2}\n" for number, name in enumerate(names))
    (folder / "metadata_train.csv").write_text("file_path,class\n" + lines)
    data = f"folder:{folder}"
    people = Ingested(data, store).table("recordings").groupby("subject_id").size()
    erased = people.index[people == 2].item()
    decisions.decide(store, "erasures", {"tag": tombstone_tag(erased)}, "asked for it in writing")
    assert rotate(monkeypatch, data, tmp_path / "map.json") == 0
    again = Ingested(data, store, run_id="r2", max_quarantine_fraction=1.0)
    assert list(again.table("quarantine")["reason"]) == ["erased", "erased"]
    here = set(again.table("recordings")["subject_id"])
    (known,) = here & set(people.index)  # by the name; the other one is a stranger

    (heard,) = here - {known}
    decisions.decide(store, "erasures", {"tag": tombstone_tag(heard)}, "asked for it in writing")
    assert rotate(monkeypatch, data, tmp_path / "map-2.json", old=NEW, new=NEWEST) == 78


def test_the_tag_is_that_of_the_number_in_whatever_writing(
    cohort: Cohort,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    had = subjects(Ingested(cohort.write(), store))
    monkeypatch.setattr(sys, "stdin", io.StringIO("SITE-A\n001234567-a\n"))
    assert main(["pseudonyms", "tag"]) == 0
    assert capsys.readouterr().out.split() == [tombstone_tag(had["r000"])]
    monkeypatch.setattr(sys, "stdin", io.StringIO("site-a\nS/N\n"))
    assert main(["pseudonyms", "tag"]) == 78


def test_another_map_is_another_result(
    cohort: Cohort, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = cohort.write()
    assert rotate(monkeypatch, data, tmp_path / "map.json") == 0
    with_map = Ingested(data, store, run_id="r2").record.key
    monkeypatch.delenv("SPIRA_PSEUDONYM_MAP")
    assert Ingested(data, store, run_id="r3").record.key != with_map


def test_the_map_is_closed_and_kept_apart(
    cohort: Cohort,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = cohort.write()
    for inside in (Path(store.url) / "map.json", cohort.folder / "map.json"):
        assert rotate(monkeypatch, data, inside) == 78
        assert "kept beside the key, apart from the store" in capsys.readouterr().err
        assert not inside.exists()
    out = tmp_path / "map.json"
    assert rotate(monkeypatch, data, out) == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    content = out.read_text()
    assert len(json.loads(content)["people"]) == 6
    assert not re.search("12345..A|site-a", content)
    assert rotate(monkeypatch, data, out) == 78
    assert "is there already" in capsys.readouterr().err
    assert rotate(monkeypatch, data, tmp_path / "same.json", old=NEW) == 78
    assert "set SPIRA_PSEUDONYM_KEY to the new key" in capsys.readouterr().err


def test_the_hospitals_own_list_will_do(
    cohort: Cohort, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = subjects(Ingested(cohort.write(), store))
    listed = tmp_path / "list.csv"
    pd.DataFrame(cohort.rows)[["patient_rgh", "hospital_id"]].to_csv(listed, index=False)
    out = tmp_path / "map.json"
    monkeypatch.setenv("SPIRA_PSEUDONYM_KEY_OLD", OLD)
    monkeypatch.setenv("SPIRA_PSEUDONYM_KEY", NEW)
    assert main(["pseudonyms", "rotate", "--list", str(listed), "--out", str(out)]) == 0
    people = json.loads(out.read_text())["people"]
    assert {*people.values()} == set(first.values())
    (tmp_path / "other.csv").write_text("name\nAna\n")
    arguments = ["pseudonyms", "rotate", "--list", str(tmp_path / "other.csv"), "--out", f"{out}2"]
    assert main(arguments) == 78


def test_the_key_is_in_no_store_no_log_and_no_message(
    cohort: Cohort,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nor is anything of a map, or a hospital number."""
    caplog.set_level(logging.DEBUG)
    data = cohort.write()
    Ingested(data, store)
    assert rotate(monkeypatch, data, tmp_path / "map.json") == 0
    Ingested(data, store, run_id="r2", as_of=AS_OF)
    new = json.loads((tmp_path / "map.json").read_text())["people"]
    shown = capsys.readouterr()
    reported = "\n".join([shown.out, shown.err, caplog.text]).encode()
    stored = [path.read_bytes() for path in Path(store.url).rglob("*") if path.is_file()]
    tables = [
        made.table("recordings").to_csv().encode() for made in (Ingested(data, store, run_id="r2"),)
    ]
    for secret in (OLD, NEW, *new, "1234567A"):
        assert not any(secret.encode() in content for content in [reported, *stored, *tables]), (
            secret
        )


def test_no_image_is_built_with_a_key() -> None:
    """It comes when a step starts; a build neither takes it nor copies a file that may hold it."""
    files = [path for path in (ROOT / "docker").rglob("*") if "ockerfile" in path.name]
    assert files
    for file in files:
        text = file.read_text()
        assert "PSEUDONYM" not in text, file
        assert not re.search(r"^(COPY|ADD)[^\n]*(secrets|\.env\b|\s\.\s)", text, re.MULTILINE), file
