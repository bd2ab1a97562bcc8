"""Read YAML in which no key is there twice: of two limits the last would count, unseen."""

from __future__ import annotations

from typing import Any


def load(content: bytes) -> Any:
    """The content of a file; raises yaml.YAMLError where it is no YAML, or has a key twice."""
    import yaml

    class Once(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            if twice := sorted({key for key in keys if keys.count(key) > 1}):
                raise yaml.YAMLError(f"{', '.join(twice)} is there twice: keep one")
            content: dict[Any, Any] = super().construct_mapping(node, deep)
            return content

    return yaml.load(content, Loader=Once)  # noqa: S506  (a safe loader)
