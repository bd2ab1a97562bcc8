"""What a configuration names: known names, names that packages add, and what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from packages import install
from pydantic import ValidationError

from spira_tasks.config import StageConfig, implementation_of, registered
from spira_tasks.errors import ConfigError
from spira_tasks.registry import Registry, _digest

SHAPES: Registry[Any] = Registry("shapes", {"path": "pathlib:Path", "gone": "pathlib:Gone"})
ROUND = "def make() -> str:\n    return 'round'\n"


class Config(StageConfig):
    shape: Annotated[str, registered(SHAPES)] = "path"
    shape_code: str = implementation_of(SHAPES, "shape")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages; the cache of digests is as new."""
    monkeypatch.syspath_prepend(tmp_path)
    _digest.cache_clear()
    return tmp_path


def test_a_name_of_ours_is_imported_when_it_is_asked_for() -> None:
    assert SHAPES.names() == ["path", "gone"]
    assert SHAPES.find("path") is Path
    assert SHAPES.implementation("path") == ""
    assert Config().shape_code == ""


def test_a_name_that_nothing_has_is_refused_with_those_that_are_known() -> None:
    expected = r"no 'cube' among the shapes\. Known are: path, gone\. .*spira\.shapes"
    with pytest.raises(ConfigError, match=expected):
        SHAPES.find("cube")
    with pytest.raises(ValidationError, match=expected):
        Config(shape="cube")


def test_an_installed_package_adds_a_name_and_its_code_is_part_of_the_configuration(
    site: Path,
) -> None:
    install(
        site, "spira_round", {"it.py": ROUND}, {"spira.shapes": {"ball": "spira_round.it:make"}}
    )
    assert SHAPES.names() == ["path", "gone", "ball"]
    assert SHAPES.find("ball")() == "round"
    first = Config(shape="ball").shape_code
    assert first.startswith("spira_round 1.0 ")
    _digest.cache_clear()
    (site / "spira_round" / "it.py").write_text(ROUND + "# edited\n")
    assert Config(shape="ball").shape_code not in ("", first)


def test_a_package_cannot_take_a_name_that_another_has(site: Path) -> None:
    install(site, "spira_one", {}, {"spira.shapes": {"ball": "spira_one:make"}})
    install(site, "spira_two", {}, {"spira.shapes": {"ball": "spira_two:make"}})
    with pytest.raises(ConfigError, match=r"adds 'ball' to spira\.shapes, a name that spira_"):
        SHAPES.names()


def test_a_package_cannot_take_a_name_of_ours(site: Path) -> None:
    install(site, "spira_path", {}, {"spira.shapes": {"path": "spira_path:make"}})
    with pytest.raises(ConfigError, match="a name that SPIRA itself has: remove the package"):
        SHAPES.find("cube")


def test_a_package_that_cannot_be_imported_is_named(site: Path) -> None:
    install(site, "spira_bad", {}, {"spira.shapes": {"bad": "spira_bad:absent"}})
    with pytest.raises(ConfigError, match="of the package spira_bad, and cannot be imported"):
        SHAPES.find("bad")
