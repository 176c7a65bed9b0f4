"""A graph in ONNX Runtime: one thread for each that calls it, so that parts of a batch are computed side by side. Knows nothing of torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from img2seq.errors import ModelError

Result = TypeVar("Result")
NOWHERE = "/nonexistent"


class OnnxSession:
    """Computes outputs by their names.

    Args:
        model: an ONNX file's bytes, weights included: weights in other files are not read.
    """

    def __init__(self, model: bytes):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", NOWHERE)
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    @property
    def types(self) -> dict[str, str]:
        """Return the type of each input and output, such as tensor(float)."""
        return {node.name: node.type for node in (*self._session.get_inputs(), *self._session.get_outputs())}

    @property
    def inputs(self) -> dict[str, list[Any]]:
        """Return the shape of each input: numbers, and names where any size will do."""
        return {node.name: node.shape for node in self._session.get_inputs()}

    @property
    def outputs(self) -> dict[str, list[Any]]:
        """Return the shape of each output."""
        return {node.name: node.shape for node in self._session.get_outputs()}

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Any]) -> list[Any]:
        """Return these outputs. Raises ModelError where the runtime cannot compute them."""
        try:
            found: list[Any] = self._session.run(outputs, feeds)
        except Exception as error:  # the runtime has many kinds
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(f"ONNX Runtime cannot compute {', '.join(outputs[:1])}: {reason}") from error
        return found


def usable_threads(spare: int = 0) -> int:
    """Return how many threads may compute: OMP_NUM_THREADS where a user has set it, else the cores we may use but for `spare`."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - spare)


def in_parts(work: Callable[[slice], Result], n: int, size: int, threads: int) -> list[Result]:
    """Return what `work` makes of each part of n things, at most `size` in each, as many at a time as there are threads."""
    size = max(1, min(size, -(-n // threads)))
    parts = [slice(start, min(start + size, n)) for start in range(0, n, size)]
    if 1 in (len(parts), threads):
        return [work(part) for part in parts]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, parts))
