"""Where data enters: a folder or the prefix of a bucket, outside any store."""

from __future__ import annotations

from pathlib import Path

import pytest

from spira_tasks.artifacts import open_source, put_source
from spira_tasks.artifacts.backends import Backend
from spira_tasks.artifacts.sources import open_backend
from spira_tasks.errors import ConfigError, ServiceUnavailable


@pytest.fixture
def backend(place: str) -> Backend:
    """The same place as the store's, to look behind it and to damage it."""
    return open_backend(place)


@pytest.fixture
def source(place: str, backend: Backend) -> str:
    """A place where a hospital has left files, outside any store."""
    for name in ("session 1/a+b.wav", "session 1/ç.wav", "recordings.csv"):
        backend.write(name, name.encode())
    for name in (".DS_Store", "session 1/._a+b.wav", ".git/config"):
        backend.write(name, b"not data")
    return place if place.startswith("s3://") else f"folder:{place}"


def test_a_source_shows_its_files_but_not_the_hidden_ones(source: str) -> None:
    directory = open_source(source)

    assert directory.names == ("recordings.csv", "session 1/a+b.wav", "session 1/ç.wav")
    for name in directory.names:
        assert directory.path(name).read_bytes() == name.encode()
        assert directory.path(name).suffix == Path(name).suffix


def test_the_digest_of_a_source_changes_with_its_content_only(
    source: str, backend: Backend
) -> None:
    before = open_source(source).digest
    backend.write("recordings.csv", b"recordings.csv")  # the same content, written later
    backend.write(".hidden", b"more")
    assert open_source(source).digest == before

    backend.write("recordings.csv", b"recordings.CSV")
    changed = open_source(source).digest
    backend.write("more.csv", b"")
    assert len({before, changed, open_source(source).digest}) == 3


def test_a_source_that_changes_while_it_is_read_is_refused(source: str, backend: Backend) -> None:
    directory = open_source(source)
    backend.write("recordings.csv", b"a later upload")
    backend.set_aside("session 1/a+b.wav")

    for name in ("recordings.csv", "session 1/a+b.wav"):
        with pytest.raises(ServiceUnavailable, match=r"changed or removed.*run the step again"):
            directory.path(name)


def test_names_in_a_source_are_not_quoted_in_errors(source: str) -> None:
    with pytest.raises(ConfigError, match="no such file") as raised:
        open_source(source).path("MARIA_1954.wav")
    assert "MARIA" not in str(raised.value)


def test_a_source_without_files_is_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with pytest.raises(ConfigError, match="there are no files"):
        open_source(place if place.startswith("s3://") else f"folder:{place}")
    with pytest.raises(ConfigError, match="does not exist"):
        open_source(f"folder:{tmp_path}/absent")
    with pytest.raises(ConfigError, match="neither folder:<path> nor s3"):
        open_source(str(tmp_path))


def test_links_to_folders_are_refused_rather_than_left_out(tmp_path: Path) -> None:
    for name in ("elsewhere/a.wav", "source/b.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "source/link").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ConfigError, match="links to folders"):
        open_source(f"folder:{tmp_path}/source")


def test_a_delivery_is_put_once_and_replaces_nothing_unasked(place: str, tmp_path: Path) -> None:
    folder = tmp_path / "delivery"
    (folder / "audio").mkdir(parents=True)
    (folder / "audio/a.wav").write_bytes(b"a" * 6_000_000)  # S3 takes it in two parts
    (folder / "audio/b.wav").write_bytes(b"b")
    (folder / "recordings.csv").write_text("first")

    def put(*, replace: bool = False) -> int:
        return put_source(
            open_source(f"folder:{folder}"), place, ["recordings.csv"], replace=replace
        )

    assert put() == 3
    assert put() == 0
    backend = open_backend(place)
    (folder / "audio/b.wav").write_bytes(b"c")
    (folder / "audio/d.wav").write_bytes(b"d")
    with pytest.raises(ConfigError, match=r"1 of the 4 files are in .* with another content"):
        put()
    assert backend.find("audio/d.wav") is None
    assert put(replace=True) == 2
    assert backend.read("audio/b.wav") == b"c"


def test_the_tables_of_a_delivery_come_after_what_they_name(tmp_path: Path) -> None:
    folder, place = tmp_path / "delivery", tmp_path / "place"
    folder.mkdir()
    for name in ("a.csv", "b.wav", "c.wav"):
        (folder / name).write_text(name)
    put_source(open_source(f"folder:{folder}"), str(place), ["a.csv"], replace=False)
    written = {name: (place / name).stat().st_mtime_ns for name in ("a.csv", "b.wav", "c.wav")}
    assert max(written, key=lambda name: written[name]) == "a.csv"
