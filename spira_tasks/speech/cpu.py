"""Settings of the process that make CPU work fast and repeatable."""

from __future__ import annotations

import ctypes
import sys

import torch

# mallopt's parameters, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


def prepare(n_threads: int) -> None:
    """Fix the number of threads, ask for repeatable kernels, and let freed memory be used again.

    Sums are split among threads, so their number is part of what makes weights equal bit for bit.
    By default glibc returns every large tensor to the kernel and faults its pages in again: that
    made feature extraction ten times slower (measured on 2 cores, 1 ms a window instead of 10).
    """
    torch.set_num_threads(n_threads)
    # As use_deterministic_algorithms, which would import torch's compiler too: two seconds a step.
    torch.set_deterministic_debug_mode("warn" if torch.cuda.is_available() else "error")
    # Results repeat without it: no code here reads memory that it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "gnu_get_libc_version"):
            libc.mallopt(M_MMAP_THRESHOLD, 2**30)
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
            libc.mallopt(M_TOP_PAD, 2**26)
