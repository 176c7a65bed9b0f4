"""Each of torch's threads on a core of its own while a step is computed.

Threads that compute a step together wait for each other hundreds of times. Beside another program the system often runs two
of them on one core, where one waits for the other to stop waiting: a step then takes several times as long as a fair share of
the machine would allow. `python -m benchmarks neighbour` measures it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from img2seq.model.onnx_session import usable_threads

SETTINGS = ("OMP_", "GOMP_", "KMP_", "MKL_")  # how variables of the environment begin that set something of threads

_first_core: set[int] = set()  # where the calling thread belongs while it computes; nothing: wherever the system likes


def bind_threads() -> None:
    """Import torch so that each thread it starts stays on a core of its own. Before torch is imported, on Linux alone.

    A user's own settings of threads win, such as torchrun's OMP_NUM_THREADS: the threads of several processes would meet on
    the first cores.
    """
    is_set = any(name.startswith(SETTINGS) for name in os.environ)
    if sys.platform != "linux" or is_set:
        return
    cores = os.sched_getaffinity(0)
    # Read once, when torch's library of threads is loaded.
    os.environ |= {"OMP_PLACES": "cores", "OMP_PROC_BIND": "spread"}
    try:
        import torch  # noqa: F401
    finally:
        del os.environ["OMP_PLACES"], os.environ["OMP_PROC_BIND"]  # no concern of programs that we start
    _first_core.update(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores)  # threads that we start ourselves may be anywhere


def let_threads_sleep() -> None:
    """Have torch's threads sleep while they wait for each other, where they would spin. Before torch is imported.

    A thread that spins keeps the core that the one it waits for needs, if anything else runs: in a server the event loop, pictures
    being decoded, clients, neighbours. A user's own OMP_WAIT_POLICY wins.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def leave_a_core() -> None:
    """Have torch compute on one core fewer, where a user has not set how many: the event loop and pictures being decoded need one.

    With two cores and sixteen clients one thread made 32 captions a second, two that sleep 23 and two that spin 31.
    """
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), usable_threads(spare=1)))


@contextmanager
def on_first_core() -> Iterator[None]:
    """Keep the calling thread on the core that is its own among torch's threads."""
    if not _first_core:
        yield
        return
    cores = os.sched_getaffinity(0)
    with suppress(OSError):  # the cores we may use have changed since
        os.sched_setaffinity(0, _first_core)
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, cores)
