"""Python's garbage collector while modules are imported."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from img2seq.model.cpu.switch import is_on


@contextmanager
def collector_paused() -> Iterator[None]:
    """Import without the collector, which looks again and again at half a million objects that all stay."""
    if not is_on("collector"):
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # nor does it look at them later
        gc.enable()
