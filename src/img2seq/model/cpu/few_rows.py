"""How many of torch's threads decode few captions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

FEW_ROWS = 20  # four images of five beams: beyond, both ways took as long on two cores


@contextmanager
def one_thread_for(n_rows: int, device: torch.device) -> Iterator[None]:
    """Compute on one thread where the rows are few: a second one saves less than waiting for it takes, beside other programs far less."""
    n_threads = torch.get_num_threads()
    if n_rows > FEW_ROWS or device.type != "cpu" or n_threads == 1 or "OMP_NUM_THREADS" in os.environ:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
