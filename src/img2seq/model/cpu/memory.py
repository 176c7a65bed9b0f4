"""How the C library hands out memory while training on a CPU."""

from __future__ import annotations

import ctypes
import platform

from img2seq.model.cpu.switch import is_on

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEEP_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks for the next step, and return whether it does.

    By default it gives every large block back to the system, which clears and maps it anew in the next step: a fifth
    of a training step went into that. Elsewhere than on glibc nothing is changed.
    """
    if not is_on("memory") or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES) and libc.mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES))
