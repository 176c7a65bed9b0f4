"""Messages and progress bars on standard error; messages also go to the run's log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

LEVELS = ("debug", "info", "warning", "error", "critical")


def counted(n: int, noun: str) -> str:
    """Return "1 image" or "2 images"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


class _Stderr:
    """Standard error that drops what cannot be written: its reader may be gone, as Ctrl-C ends `| tee log` too."""

    def write(self, text: str) -> None:
        with suppress(
            OSError, RuntimeError
        ):  # RuntimeError: a signal arrived while a line was written, and its handler writes too
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError, RuntimeError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


STDERR = _Stderr()


def _has_width() -> bool:
    """Tell whether standard error is no terminal that claims to be 0 columns wide, as in a container: bars would be cut to nothing."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError, AttributeError):
        return True


class Announcer:
    """Lines and progress bars. What cannot be shown or logged is lost: training does not end for want of a reader.

    Args:
        level: the least severe lines to show.
        bars: whether to show bars.
        log: a file that lines of every severity are appended to.
    """

    def __init__(self, *, level: str = "info", bars: bool = True, log: Path | None = None):
        self.level, self.bars, self.log = level, bars, log

    def say(self, text: str, *, level: str = "info") -> None:
        """Show a line, above any bar, and append it to the log."""
        text = text.encode("utf-8", "backslashreplace").decode()  # file names may not be valid UTF-8
        if self.log is not None:
            with suppress(OSError), self.log.open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {level:<7} {text}\n")
        if LEVELS.index(level) >= LEVELS.index(self.level):
            tqdm.write(text, file=STDERR)

    def warn(self, text: str) -> None:
        """Show a warning."""
        self.say(f"warning: {text}", level="warning")

    @contextmanager
    def bar(self, what: str, total: int, *, unit: str = "images") -> Iterator[Callable[..., None]]:
        """Show a bar with rate and time left; the function it gives advances it, and may show figures behind it."""
        with tqdm(
            total=total,
            desc=what,
            unit=f" {unit}",
            unit_scale=unit == "B",
            disable=not self.bars,
            leave=False,
            file=STDERR,
            dynamic_ncols=_has_width(),
        ) as bar:

            def advance(n: int, figures: str = "") -> None:
                if figures:
                    bar.set_postfix_str(figures, refresh=False)
                bar.update(n)

            yield advance
