"""Which files are read: regular ones, and links to such."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

SPECIAL = {"p": "a pipe", "s": "a socket", "c": "a device", "b": "a device"}  # by `stat.filemode`


def regular(path: Path) -> Path:
    """Return a path that may be opened. Raises OSError where there is nothing, and for a pipe or a device: its end may never come."""
    if found := SPECIAL.get(stat.filemode(path.stat().st_mode)[0]):
        raise OSError(errno.EINVAL, f"expected a regular file, found {found}")
    return path
