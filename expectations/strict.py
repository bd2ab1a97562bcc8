"""Read a file of limits strictly: a key that is unknown, missing or there twice is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from spira_tasks.errors import ConfigError


class Part(BaseModel):
    """Keys that belong together; another key, or a value of another type, is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Content = TypeVar("Content", bound=Part)


def read(file: Path, kind: type[Content]) -> tuple[Content, str]:
    """The content of a YAML file, and the SHA-256 of its bytes in hexadecimal.

    Raises
    ------
    ConfigError
        When it is not YAML of this kind; names each key that is wrong.
    """
    import yaml

    class UniqueKeyLoader(yaml.SafeLoader):
        """Of two equal keys YAML takes the last, and nobody would see the other."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            if twice := sorted({key for key in keys if keys.count(key) > 1}):
                raise yaml.YAMLError(f"{', '.join(twice)} is there twice: keep one")
            found: dict[Any, Any] = super().construct_mapping(node, deep)
            return found

    content = file.read_bytes()
    try:
        # a safe loader, by its base
        found = kind.model_validate(yaml.load(content, Loader=UniqueKeyLoader))  # noqa: S506
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
        )
        raise ConfigError(f"{file}: {problems}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not read: {error}") from None
    return found, hashlib.sha256(content).hexdigest()
