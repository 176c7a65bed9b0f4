"""The one switch of the speed-ups: all are on unless the environment says otherwise.

    IMG2SEQ_PLAIN=1                  everything runs plain: torch's own operations
    IMG2SEQ_PLAIN=winograd,dropout   these run plain, the others stay on

Plain, the numbers are the same up to rounding (dropout draws another mask). `python -m benchmarks kernels` measures what each
brings. Imports nothing heavy: the command line asks before torch is loaded.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Literal, get_args

from img2seq.errors import ConfigError, did_you_mean

VARIABLE = "IMG2SEQ_PLAIN"

SpeedUp = Literal[
    "winograd",  # 3 x 3 convolutions by Winograd's filtering
    "taps",  # convolutions onto a few places, one product for each tap
    "attention_products",  # attention over short rows as plain matrix products
    "dropout",  # masks from a fast generator
    "memory",  # glibc keeps freed memory
    "decoding_layout",  # linear weights kept by input while decoding
    "collector",  # imports with Python's garbage collector paused
    "onnx_encoder",  # frozen encoders through ONNX Runtime
    "onnx_decoder",  # captions through ONNX Runtime
]
NAMES: tuple[SpeedUp, ...] = get_args(SpeedUp)


def is_on(name: SpeedUp) -> bool:
    """Return whether a speed-up is on. Read at use, so that a test or a benchmark can change it in a running process.

    Raises:
        ConfigError: if IMG2SEQ_PLAIN names something else than speed-ups.
    """
    return name not in _plain(os.environ.get(VARIABLE, ""))


@lru_cache  # names are checked once for each value of the variable
def _plain(text: str) -> frozenset[str]:
    """Return the speed-ups that are off."""
    names = {name.strip() for name in text.split(",")} - {"", "0"}
    if names == {"1"}:
        return frozenset(NAMES)
    if unknown := sorted(names - set(NAMES)):
        raise ConfigError(
            f"{VARIABLE}: expected 1, or names of speed-ups with commas between ({', '.join(NAMES)}); "
            f"found {unknown[0]!r}.{did_you_mean(unknown[0], NAMES)}"
        )
    return frozenset(names)
