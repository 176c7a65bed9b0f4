"""Several processes that train one model: who they are, and the few numbers they tell each other.

torchrun (or anything else that sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT) starts the same program in every
process. What they tell each other here goes over gloo, on GPUs too, where only gradients go over NCCL: gloo notices at once
when a process has died. No objects are sent, only numbers, so nothing is ever unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from img2seq.data.seeds import seed_of
from img2seq.errors import ConfigError, RunError

TIMEOUT = timedelta(hours=24)  # the others wait as long as the first one decodes; who has died is noticed at once
LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class World:
    """The processes of a run, as one of them sees it. Every method but `first` must be called by all of them.

    Attributes:
        rank: which of them this one is, from 0.
        size: how many there are.
        local_rank: the same as `rank` among those of one machine.
        group: what carries numbers in the CPU's memory; None where the processes' own group does.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    group: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Return whether this is the process that writes the run folder and talks."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process has come here."""
        self.sum(0.0)

    def sum(self, value: float) -> float:
        """Return the sum over all processes."""
        return float(self.sum_arrays(np.array([value], dtype=np.float64))[0])

    def sum_arrays(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the elementwise sum over all processes of arrays of one shape."""
        if self.size == 1:
            return values
        total = torch.from_numpy(values.copy())
        dist.all_reduce(total, group=self.group)
        return total.numpy()

    def all_texts(self, mine: Mapping[int, str], n: int) -> list[str]:
        """Return n texts, of which each process has some by their places, and another process none of them."""
        encoded = {place: np.frombuffer(text.encode(), np.uint8) for place, text in mine.items()}
        table = np.zeros((n, self.largest(max(map(len, encoded.values()), default=0))))
        for place, text in encoded.items():
            table[place, : len(text)] = text
        rows = self.sum_arrays(table).astype(np.uint8)
        return [row[row > 0].tobytes().decode() for row in rows]

    def largest(self, value: int) -> int:
        """Return the largest of the processes' values."""
        if self.size == 1:
            return value
        found = torch.tensor([value])
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.group)
        return int(found)

    def from_first(self, function: Callable[[], int]) -> int:
        """Call the function in the first process alone, and return its result in all."""
        return int(self.sum(function() if self.first else 0))

    def in_turn(self, function: Callable[[], _Result]) -> _Result:
        """Call the function in the first process, then in the first one of each machine, then in the others.

        What the first ones leave in a cache, shared by all machines or not, the later ones find there.
        """
        turn = 0 if self.first else 1 if self.local_rank == 0 else 2
        for _ in range(turn):
            self.wait()
        result = function()
        for _ in range(turn, 2):
            self.wait()
        return result

    def check_same(self, what: str, *parts: str | int) -> None:
        """Raise RunError unless all processes give the same parts."""
        mine = seed_of(*parts)
        if self.largest(mine) != -self.largest(-mine):
            raise RunError(f"{what} differ between the processes of this run; all machines must see the same files")

    def average_(self, tensors: list[Tensor]) -> None:
        """Replace floating-point tensors by their mean over all processes."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))


ALONE = World()


@contextmanager
def joined(device: str) -> Iterator[World]:
    """Join the processes that were started together, if any were; leave them at the end.

    An error ends all processes: the one that has it leaves, which the others notice in their next exchange. Only the first
    that can still speak says what happened; in the others the error is marked `already_reported`.

    Raises:
        RunError: in place of whatever the lower layers say when another process has died.
    """
    if dist.is_initialized():  # by the program that calls us
        local_rank = int(os.environ.get("LOCAL_RANK", dist.get_rank()))
        takes_cpu = dist.get_world_size() == 1 or "cpu:" in dist.get_backend_config()  # NCCL alone does not
        group = None if takes_cpu else cast(dist.ProcessGroup, dist.new_group(backend="gloo"))
        yield World(dist.get_rank(), dist.get_world_size(), local_rank, group)
        return
    if not all(name in os.environ for name in LAUNCHED) or int(os.environ["WORLD_SIZE"]) == 1:
        yield ALONE
        return
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    dist.init_process_group(_backend(device, local_rank), store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        yield World(rank, size, local_rank)
    except Exception as error:
        if _means_a_dead_process(error):
            lost = RunError("another process of this run has died; --resume continues from the newest checkpoint")
            lost.already_reported = _is_already_reported(store)
            raise lost from error
        if hasattr(error, "already_reported"):
            error.already_reported = _is_already_reported(store)
        raise
    finally:
        dist.destroy_process_group()


def _backend(device: str, local_rank: int) -> str:
    """Return what carries numbers between processes, after choosing this process's GPU if GPUs are used."""
    if device.startswith("cuda:") or device == "mps":
        raise ConfigError(
            f"basic_experiment.device: expected cpu or cuda where there are several processes, found {device}; each takes a GPU of its own"
        )
    if device == "cpu" or not torch.cuda.is_available():
        return "gloo"
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"torchrun: process {local_rank + 1} of this machine has no GPU: there are {torch.cuda.device_count()}; lower --nproc-per-node"
        )
    torch.cuda.set_device(local_rank)
    return "cpu:gloo,cuda:nccl"


def _is_already_reported(store: Store) -> bool:
    """Return whether another process has told the user already; the store outlives any one of them under torchrun."""
    try:
        return int(store.add("reported", 1)) > 1
    except RuntimeError:
        return False


def _means_a_dead_process(error: Exception) -> bool:
    """Return whether an exchange failed; gloo's errors have no type of their own, but name the file they come from."""
    return isinstance(error, dist.DistError) or (type(error) is RuntimeError and "gloo" in str(error))
