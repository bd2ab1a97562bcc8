"""A report pack: the same site is the same zip, and whatever is changed in one is found."""

from __future__ import annotations

import json
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from spira_tasks.artifacts import Store
from spira_tasks.cli import main
from spira_tasks.contract.exits import EXIT_CONFIG, EXIT_REJECTED
from spira_tasks.errors import ConfigError
from spira_tasks.governance import audit, signing
from spira_tasks.reports import pack
from spira_tasks.reports.site import put

ABOUT = {"run_id": "first", "made_at": "2026-11-21T03:00:00+00:00"}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    (folder / "parts").mkdir(parents=True)
    (folder / "index.html").write_text("<p>olá</p>", "utf-8")
    (folder / "parts" / "features.html").write_text("<p>features</p>")
    return folder


@pytest.fixture
def file(site: Path, tmp_path: Path) -> Path:
    pack.write_manifest(site, ABOUT)
    pack.write_zip(site, tmp_path / "first.zip")
    return tmp_path / "first.zip"


def changed(file: Path, name: str, content: bytes | None) -> Path:
    """The zip with one file changed, added, or (None) removed."""
    other = file.with_name("changed.zip")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(other, "w") as new:
        for entry in old.namelist():
            if entry != f"first/{name}":
                new.writestr(entry, old.read(entry))
        if content is not None:
            new.writestr(f"first/{name}", content)
    return other


def test_a_pack_is_whole_as_it_was_made(file: Path) -> None:
    found = pack.verify(file)
    assert found.problems == []
    assert (found.run_id, found.n_files) == ("first", 2)
    assert found.is_demonstration  # no key is set here, and the pack says so


def test_the_same_site_is_the_same_zip_at_any_time_of_any_owner(site: Path, tmp_path: Path) -> None:
    pack.write_manifest(site, ABOUT)
    pack.write_zip(site, tmp_path / "a" / "x.zip")
    (site / "index.html").touch()
    (site / "index.html").chmod(0o600)
    pack.write_zip(site, tmp_path / "b" / "x.zip")
    first, second = ((tmp_path / name / "x.zip").read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("index.html", b"<p>promoted</p>", "index.html was changed"),
        ("index.html", None, "index.html is missing"),
        ("verdict.html", b"<p>new</p>", "verdict.html is not in the manifest"),
    ],
)
def test_a_file_that_was_changed_removed_or_added_is_found(
    file: Path, name: str, content: bytes | None, problem: str
) -> None:
    assert pack.verify(changed(file, name, content)).problems == [problem]


def test_a_manifest_made_to_fit_the_change_has_another_signature(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        manifest = json.loads(archive.read("first/manifest.json"))
    page = b"<p>promoted</p>"
    manifest["files"]["index.html"] = sha256(page).hexdigest()
    forged = changed(file, "index.html", page)
    forged = changed(forged.rename(file), "manifest.json", json.dumps(manifest).encode())
    assert pack.verify(forged).problems == [
        "the manifest was changed: its signature is not that of its content"
    ]


def test_a_pack_that_is_signed_anew_shows_another_key(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(signing.VARIABLE, "ab" * 32)
    with zipfile.ZipFile(file) as archive:
        manifest = json.loads(archive.read("first/manifest.json"))
    again = changed(file, "manifest.json", json.dumps(signing.sign(manifest)).encode())
    before, after = pack.verify(file), pack.verify(again)
    assert after.problems == []
    assert after.public_key != before.public_key
    assert not after.is_demonstration


def test_a_report_that_another_signed_is_not_of_this_platform(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own word on whose key that is, and whether it is the demonstration's, counts nothing."""

    def verified(*more: str) -> tuple[int, str]:
        options = ["--verify", str(file), "--store", str(tmp_path / "s"), *more]
        return main(["report", *options]), capsys.readouterr().out

    assert "which everybody has: it proves nothing" in verified()[1]
    monkeypatch.setenv(signing.VARIABLE, "ab" * 32)
    assert main(["report", "--public-key"]) == 0
    ours = capsys.readouterr().out.strip()
    assert ours == signing.public_key()
    status, reported = verified()
    assert status == EXIT_REJECTED
    assert f"it is not signed by the key {ours}" in reported
    with zipfile.ZipFile(file) as archive:
        manifest = json.loads(archive.read("first/manifest.json"))
    signed = changed(file, "manifest.json", json.dumps(signing.sign(manifest)).encode())
    signed.rename(file)
    assert verified()[0] == 0
    monkeypatch.delenv(signing.VARIABLE)
    assert verified("--key", ours)[0] == 0
    assert verified("--key", "0" * 64)[0] == EXIT_REJECTED
    assert "whose key that is was not asked" in verified()[1]


def test_a_manifest_of_somebody_else_deletes_nothing_outside_its_folder(tmp_path: Path) -> None:
    folder, mine = tmp_path / "report", tmp_path / "mine.txt"
    folder.mkdir()
    mine.write_text("kept")
    manifest = {"format": pack.FORMAT, "files": {"../mine.txt": "0" * 64}}
    (folder / pack.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="names files outside of it"):
        put(tmp_path / "nothing", folder)
    assert mine.read_text() == "kept"


def test_two_files_of_one_name_are_found(file: Path) -> None:
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("first/index.html", "<p>which?</p>")
    assert "it holds two files of one name" in pack.verify(file).problems


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"<html>"])
def test_what_is_no_pack_is_an_error_of_the_user(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    arguments = ["report", "--verify", str(tmp_path / "x.zip"), "--store", str(tmp_path / "s")]
    assert main(arguments) == EXIT_CONFIG
    assert "is not a report of this platform" in capsys.readouterr().err


def test_verify_says_whether_the_anchor_is_in_the_log(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(str(tmp_path / "s"))
    anchor = audit.record(store, "gate", {"run": "first"})
    pack.write_manifest(site, ABOUT | {"audit": {"number": 1, "hash": anchor.hash}})
    file = tmp_path / "first.zip"
    pack.write_zip(site, file)

    def verified(store: str) -> tuple[int, str]:
        status = main(["report", "--verify", str(file), "--store", str(tmp_path / store)])
        return status, capsys.readouterr().out

    status, reported = verified("s")
    assert status == 0
    assert (
        "event 1 of the audit log, the newest when it was made, is in the store's log" in reported
    )
    status, reported = verified("another")
    assert status == EXIT_REJECTED
    assert "event 1, which this report quotes, is gone" in reported


@pytest.mark.parametrize(
    ("run_id", "name"),
    [
        ("first", "spira-report-first.zip"),
        ("manual__2026-11-21T03:00:00+00:00", "spira-report-manual__2026-11-21T03_00_00_00_00.zip"),
    ],
)
def test_a_zip_has_a_name_that_any_file_system_takes(run_id: str, name: str) -> None:
    assert pack.file_name(run_id) == name
