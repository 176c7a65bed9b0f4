"""Write checkpoints in a thread beside training, from copies taken between two steps."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from img2seq.errors import Img2SeqError
from img2seq.run import save_checkpoint
from img2seq.run.snapshot import Snapshot
from img2seq.run.write import to_disk


class Saver:
    """Takes snapshots of the tensors, then writes, reads back and prunes in one thread, one checkpoint at a time.

    Args:
        folder: of the run's checkpoints.
        keep_best: how many of the best checkpoints stay, besides the newest.
        histories: files that must be on disk before the checkpoint that speaks of them.
        warn: told of an old checkpoint that cannot be removed.
    """

    def __init__(
        self, folder: Path, keep_best: int, histories: Sequence[Path] = (), warn: Callable[[str], None] = print
    ):
        self.folder, self.keep_best, self.histories, self.warn = folder, keep_best, histories, warn
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint", initializer=_lower_priority)
        self._writing: Future[None] | None = None
        self._weights, self._training = Snapshot(), Snapshot()
        self.is_prepared = False

    def prepare(self, weights: Mapping[str, Tensor], training: Mapping[str, Tensor]) -> None:
        """Take the memory for checkpoints of such tensors beside training, rather than in the step that saves first."""

        def make_room() -> None:
            self._weights.make_room(weights)
            self._training.make_room(training)

        self.wait()
        self._writing, self.is_prepared = self._thread.submit(make_room), True

    def save(
        self, step: int, weights: Mapping[str, Tensor], training: Mapping[str, Tensor], state: dict[str, Any]
    ) -> None:
        """Have a checkpoint written of the tensors as they are now.

        Waits for the one before it, and raises what went wrong with that one.
        """
        self.wait()
        self._weights.take(weights)
        self._training.take(training)
        self._writing = self._thread.submit(self._write, step, state)

    def _write(self, step: int, state: dict[str, Any]) -> None:
        for path in self.histories:
            to_disk(path)
        written = save_checkpoint.save(self.folder, step, self._weights, self._training, state)
        save_checkpoint.prune(written, self.keep_best, self.warn)

    @property
    def is_writing(self) -> bool:
        return self._writing is not None and not self._writing.done()

    def check(self) -> None:
        """Raise what went wrong with a write that has ended. Does not wait."""
        if not self.is_writing:
            self.wait()

    def wait(self) -> None:
        """Return when the last checkpoint is on disk. Raises RunError if it could not be written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown()  # waits
        self._weights, self._training = Snapshot(), Snapshot()  # their memory is free
        if error is None or isinstance(error, Img2SeqError):  # a write that failed did so before that error
            self.wait()


def _lower_priority() -> None:
    """Let training go first: where all cores are busy, a tenth of one is left. Linux alone has priorities of threads."""
    if sys.platform == "linux":
        os.nice(10)  # the lowest, 19, would leave so little that a checkpoint were never done
