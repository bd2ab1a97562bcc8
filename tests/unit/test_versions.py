"""Versions that have to agree: of libraries between laptop and images, of images between files."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text().splitlines()
    found = [re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;]+)", line) for line in lines]
    return {match[1].lower(): match[2] for match in found if match}


def test_a_step_has_the_same_libraries_on_a_laptop_and_in_its_image() -> None:
    laptop, image = pins("requirements.txt"), pins("docker/tasks.txt")
    assert len(image) > 80
    assert {name: laptop.get(name) for name in image} == image


def test_the_tasks_image_holds_no_airflow_and_the_airflow_image_no_torch() -> None:
    assert not [name for name in pins("docker/tasks.txt") if name.startswith("apache-airflow")]
    assert "torch" not in pins("docker/airflow.txt")


def test_airflow_is_the_same_on_a_laptop_and_in_its_image() -> None:
    laptop, image = pins("requirements.txt"), pins("docker/airflow.txt")
    shared = [name for name in laptop if name.startswith(("apache-airflow", "docker", "minio"))]
    assert {name: image.get(name) for name in shared} == {name: laptop[name] for name in shared}


def test_every_file_names_the_version_of_our_images_and_none_the_latest() -> None:
    files = [ROOT / ".env.example", ROOT / "docker-compose.yaml", *(ROOT / "plugins").glob("*.py")]
    tags = [tag for file in files for tag in re.findall(r"spira-\w+:([\w.]+)", file.read_text())]
    assert len(tags) >= 5
    assert set(tags) == {VERSION}
    for file in files:
        assert ":latest" not in file.read_text()


def test_every_setting_of_the_compose_file_is_explained_in_the_example() -> None:
    used = set(re.findall(r"\$\{([A-Z0-9_]+)", (ROOT / "docker-compose.yaml").read_text()))
    explained = set(re.findall(r"^#? ?([A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.M))
    assert used <= explained
