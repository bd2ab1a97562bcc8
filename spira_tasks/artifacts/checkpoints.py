"""Where work that takes long keeps its state until its result is there."""

from __future__ import annotations

from spira_tasks.artifacts.backends import Backend


class Checkpoint:
    """The state of unfinished work on one result: one file, each replacing the last.

    It belongs to a key, hence to one code, configuration and input: whatever is read here was left
    by the same work.  It is not named by its content, so its reader has to verify it.
    """

    def __init__(self, backend: Backend, key: str) -> None:
        self._backend = backend
        self._name = f"checkpoints/{key}.safetensors"

    def load(self) -> bytes | None:
        """Return what was last saved, or None when there is nothing."""
        return self._backend.read(self._name)

    def save(self, content: bytes) -> None:
        """Replace what was saved, whole or not at all."""
        self._backend.write(self._name, content)

    def set_aside(self) -> None:
        """Move what cannot be used out of the way."""
        self._backend.set_aside(self._name)

    def delete(self) -> None:
        """Remove it: the work is finished."""
        self._backend.delete(self._name)
