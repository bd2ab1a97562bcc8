"""Import torchaudio on a machine whose torch has no CUDA.

The published torchaudio wheels are linked against CUDA: on a CPU build of torch, loading their
compiled extension raises ``OSError``.  The transforms used here are plain Python on top of torch
and need none of it, so in that case the extension is replaced by an empty module that says it is
absent.  Where torchaudio imports as it is, nothing is replaced.
"""

from __future__ import annotations

import sys
from types import ModuleType

try:
    from torchaudio import transforms
except OSError:
    extension = ModuleType("torchaudio._extension")
    extension._IS_TORCHAUDIO_EXT_AVAILABLE = False  # type: ignore[attr-defined]
    extension._IS_ALIGN_AVAILABLE = False  # type: ignore[attr-defined]
    extension._check_cuda_version = lambda: None  # type: ignore[attr-defined]
    extension.fail_if_no_align = lambda function: function  # type: ignore[attr-defined]
    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        del sys.modules[name]  # what the failed import left half-made
    sys.modules["torchaudio._extension"] = extension
    from torchaudio import transforms

__all__ = ["transforms"]
