"""What a stored document says, as the types that dataclasses annotate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints


def typed(value: Any, kind: Any, where: str = "it") -> Any:
    """Check a value of JSON against an annotation; build the dataclasses and tuples in it.

    ``kind`` may be a dataclass, a plain type, ``Any``, ``Literal``, ``Mapping[str, …]``,
    ``tuple[…, ...]``, or one of these or None.  Fields that a dataclass does not have are left out:
    a newer version may have written them.

    Raises
    ------
    ValueError
        When the value is of another type; names the place in it, and not the value.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:
        (some,) = (part for part in parts if part is not NoneType)
        found = None if value is None else typed(value, some, where)
    elif is_dataclass(kind):
        found = _built(_expect(value, dict, where), kind, where)
    elif origin is Mapping:
        pairs = _expect(value, dict, where).items()
        found = {name: typed(one, parts[1], f"{where}.{name}") for name, one in pairs}
    elif origin is tuple:
        items = enumerate(_expect(value, (list, tuple), where))
        found = tuple(typed(one, parts[0], f"{where}[{at}]") for at, one in items)
    elif origin is Literal:
        if value not in parts:
            raise ValueError(f"{where} is none of {', '.join(parts)}")
        found = value
    else:
        plain = object if kind is Any else (int, float) if kind is float else kind
        found = _expect(value, plain, where)
    return found


def _built(found: Mapping[str, Any], kind: Any, where: str) -> Any:
    hints, needed = _fields(kind)
    if missing := sorted(needed - set(found)):
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    return kind(
        **{
            name: typed(found[name], hint, f"{where}.{name}")
            for name, hint in hints.items()
            if name in found
        }
    )


@cache
def _fields(kind: Any) -> tuple[dict[str, Any], set[str]]:
    """The annotations of a dataclass, and its fields without a default."""
    needed = {f.name for f in fields(kind) if f.default is f.default_factory is MISSING}
    return get_type_hints(kind), needed


def _expect(value: Any, kind: Any, where: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{where} is of the type {type(value).__name__}")
    return value
