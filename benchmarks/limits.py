"""What torch reaches on the matrix products and convolutions of a training step alone, and our share of that.

    python -m benchmarks limits [--repeats 9]

One step of the tutorial's configuration is taken with every matrix product and convolution written down, forward and backward:
operation, shapes, strides. Each is then run alone, on random numbers of the same layout, warm, with the same threads. Their sum
is the limit: a step that does nothing else. Of repeats in turn the fastest counts on both sides. Attention over captions of this
length is plain products on a CPU, and among them. A profile says where the rest goes, and a copy of a large block what memory
allows the optimiser.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry

from benchmarks.figures import save
from benchmarks.photographs import photographs
from benchmarks.steps import endless, step, trainer
from benchmarks.training import FILES, SHORT_IMAGES, arguments
from img2seq.config.load import ConfigFiles, load
from img2seq.training.loop import Trainer
from img2seq.training.work import Work

KINDS = {"image": "1 caption an image", "five": "5 captions an image", "text": "text only"}
GOAL = 0.85
WARM_STEPS, PROFILED_STEPS, ALONE_RUNS = 3, 5, 5
COPIED_NUMBERS = 1 << 26
ARITHMETIC = flop_registry | {  # products that add to what is there have the arithmetic of those that do not
    torch.ops.aten.addmm_: flop_registry[torch.ops.aten.addmm],
    torch.ops.aten.baddbmm_: flop_registry[torch.ops.aten.baddbmm],
}
OPTIMIZER_PASSES = (
    7  # of its numbers through memory: parameter, gradient, two states read; parameter and two states written
)

# Where a profiled operation belongs: the first whose beginning fits.
CATEGORIES = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "convolutions": ("aten::convolution", "aten::mkldnn_convolution", "aten::_slow_conv", "aten::thnn_conv", "aten::mkldnn_", "aten::_convolution", "aten::conv"),
    "attention": ("aten::_scaled_dot_product", "aten::scaled_dot_product"),
    "normalisation": ("aten::native_batch_norm", "aten::native_layer_norm", "aten::layer_norm", "aten::batch_norm", "aten::_batch_norm"),
    "loss": ("aten::_log_softmax", "aten::nll_loss", "aten::log_softmax", "aten::cross_entropy"),
    "random numbers": ("aten::random_", "aten::bernoulli", "aten::uniform", "aten::normal"),
    "pooling": ("aten::max_pool",),
    "copies and fills": ("aten::copy_", "aten::fill_", "aten::zero_", "aten::index", "aten::cat", "aten::clone", "aten::embedding"),
}  # fmt: skip


@dataclass(frozen=True)
class Kernel:
    """A call of an operation, without its numbers.

    Attributes:
        operation: of torch.
        arguments: in their order; a tensor stands as its layout.
        options: arguments by name.
    """

    operation: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def is_attention(self) -> bool:
        return "scaled_dot_product" in str(self.operation)

    def call(self) -> Callable[[], object]:
        """Return the call on random numbers of the same layout."""

        def tensor(layout: Layout) -> Tensor:
            length = 1 + sum((n - 1) * stride for n, stride in zip(layout.shape, layout.strides, strict=True))
            numbers = torch.zeros(length, dtype=layout.dtype)
            return (numbers.normal_() if layout.dtype.is_floating_point else numbers).as_strided(
                layout.shape, layout.strides
            )

        arguments, options = tree_map_only(Layout, tensor, (self.arguments, self.options))
        return lambda: self.operation(*arguments, **options)


@dataclass(frozen=True)
class Layout:
    """How a tensor lies in memory."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


class KernelRecorder(TorchDispatchMode):
    """Writes down every matrix product, convolution and attention that is run under it.

    Attributes:
        counts: how often each was run.
        flops: floating-point operations of the products and convolutions, a multiplication with its addition as two.
        attention_flops: those of attention.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: dict[str, tuple[Kernel, int]] = {}
        self.flops = 0
        self.attention_flops = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and note it if it is one whose arithmetic torch knows."""
        options = kwargs or {}
        result = operation(*args, **options)
        layouts = tree_map_only(Tensor, lambda t: Layout(tuple(t.shape), t.stride(), t.dtype), (args, options))
        kernel = Kernel(operation, *layouts)
        count = ARITHMETIC.get(operation._overloadpacket)
        if count is not None and not kernel.is_attention:
            self.flops += count(*args, **options, out_val=result)
        if kernel.is_attention:
            self.attention_flops += attention_flops(kernel)
        if count is not None or kernel.is_attention:
            _, before = self.counts.get(repr(kernel), (kernel, 0))
            self.counts[repr(kernel)] = (kernel, before + 1)
        return result


def attention_flops(kernel: Kernel) -> int:
    """Return the operations of a call of attention: two products forward, five backward, half of each under a causal mask."""
    is_backward = "backward" in str(kernel.operation)
    queries, keys = kernel.arguments[1:3] if is_backward else kernel.arguments[:2]
    place = 7 if is_backward else 4
    is_causal = kernel.options.get("is_causal", len(kernel.arguments) > place and kernel.arguments[place])
    pairs = math.prod(queries.shape[:-1]) * keys.shape[-2]
    return int(2 * (5 if is_backward else 2) * pairs * queries.shape[-1]) // (2 if is_causal else 1)


def seconds_alone(calls: list[tuple[Callable[[], object], int]]) -> float:
    """Return the sum over all kernels of the median time of a call, as often as the step calls it."""
    total = 0.0
    for call, count in calls:
        call()
        times = []
        for _ in range(ALONE_RUNS):
            begun = time.perf_counter()
            call()
            times.append(time.perf_counter() - begun)
        total += count * statistics.median(times)
    return total


def category(event: Any) -> str:
    """Return where an operation belongs, by its own name or by what it is part of."""
    at = event
    while at is not None:
        if at.name.startswith("Optimizer.step"):
            return "optimiser"
        if at.name.startswith("Optimizer.zero_grad"):
            return "copies and fills"
        at = at.cpu_parent
    for name, beginnings in CATEGORIES.items():
        if event.name.startswith(beginnings):
            return name
    return "elementwise and rest" if event.name.startswith("aten::") else "autograd and Python"


def consumers(made: Trainer, work: Work) -> dict[str, float]:
    """Return the milliseconds of the fastest of some profiled steps by category: the profiler's own time is in it, mostly under Python."""
    profiles = []
    for _ in range(PROFILED_STEPS):
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            took, _loss = step(made, work)
        profiles.append((took, profiled))
    found: dict[str, float] = defaultdict(float)
    for event in min(profiles, key=lambda one: one[0])[1].events() or []:
        found[category(event)] += event.self_cpu_time_total / 1000
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def optimizer_bound(made: Trainer) -> dict[str, float]:
    """Return what the optimiser's passes over memory cost at the speed of a copy, in milliseconds, and that speed."""
    source = torch.ones(COPIED_NUMBERS)
    target = torch.ones(COPIED_NUMBERS)
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        target.copy_(source)
        times.append(time.perf_counter() - begun)
    bytes_per_s = 2 * 4 * COPIED_NUMBERS / statistics.median(times)
    numbers = sum(p.numel() for p in made.trained)
    return {
        "parameters": numbers,
        "copy_gb_per_s": bytes_per_s / 1e9,
        "bound_ms": 1000 * OPTIMIZER_PASSES * 4 * numbers / bytes_per_s,
    }


def measure(made: Trainer, work: Work, repeats: int) -> dict[str, Any]:
    """Return step, limit, share and what else the step spends its time on."""
    for _ in range(WARM_STEPS):
        step(made, work)
    with KernelRecorder() as recorder:
        step(made, work)
    calls = [(kernel.call(), count) for kernel, count in recorder.counts.values() if not kernel.is_attention]
    steps, alone = [], []
    for _ in range(repeats):  # in turn, so that a slow spell of the machine meets both
        steps.append(step(made, work)[0])
        alone.append(seconds_alone(calls))
        step(made, work)  # the caches are the step's again before it is timed
    return {
        "step_ms": 1000 * min(steps),  # the least disturbed by whatever else the machine does
        "step_median_ms": 1000 * statistics.median(steps),
        "alone_ms": 1000 * min(alone),
        "alone_median_ms": 1000 * statistics.median(alone),
        "share": min(alone) / min(steps),
        "kernels": sum(count for _, count in calls),
        "shapes": len(calls),
        "gflop": recorder.flops / 1e9,
        "gflop_per_s_alone": recorder.flops / 1e9 / min(alone),
        "captions": work.n_captions,
        "consumers_ms": consumers(made, work),
        "optimizer": optimizer_bound(made),
    }


def tutorial(kind: str, data: dict[str, Path], folder: Path, overrides: Sequence[str] = ()) -> Trainer:
    """Return a trainer of the tutorial's four files, and of further overrides."""
    line = arguments(kind, data, folder / "run", epochs=1, interval=1000, workers=0)
    files = ConfigFiles(
        globals=[str(FILES / "globals.yaml")],
        inputs=[str(FILES / "inputs_resnet18.yaml")] if kind != "text" else [],
        fusion=[str(FILES / "fusion.yaml")],
        outputs=[str(FILES / "output.yaml")],
    )
    overrides = [*(word.removeprefix("--") for word in line if "=" in word), *overrides]
    overrides.append(f"globals.basic_experiment.cache_folder={folder / 'cache'}")
    return trainer(load(files, overrides).experiment, folder / "run")


def lines(kind: str, found: dict[str, Any]) -> Iterator[str]:
    """Yield what is printed of a configuration."""
    bound = found["optimizer"]
    yield (
        f"{KINDS[kind]}: step {found['step_ms']:.1f} ms (median {found['step_median_ms']:.1f}), "
        f"its {found['kernels']} matrix products and convolutions alone {found['alone_ms']:.1f} ms "
        f"({found['gflop']:.1f} GFLOP at {found['gflop_per_s_alone']:.0f} GFLOP/s): share {found['share']:.0%}, goal {GOAL:.0%}"
    )
    for name, took in found["consumers_ms"].items():
        yield f"    {name:<24}{took:>8.1f} ms"
    yield (
        f"    the optimiser's {bound['parameters'] / 1e6:.1f} million numbers at the speed of a copy "
        f"({bound['copy_gb_per_s']:.1f} GB/s): {bound['bound_ms']:.1f} ms"
    )


def main(line: list[str]) -> None:
    """Measure, print and write benchmarks/results/limits.json."""
    options = argparse.ArgumentParser(prog="python -m benchmarks limits", description=__doc__)
    options.add_argument("--repeats", type=int, default=9)
    chosen = options.parse_args(line)
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        data = photographs(Path(temporary) / "data", SHORT_IMAGES)
        for kind in KINDS:
            made = tutorial(kind, data, Path(temporary))
            found[kind] = measure(made, next(endless(made)), chosen.repeats)
            print("\n".join(lines(kind, found[kind])), flush=True)
    save("limits", {"goal": GOAL, "configurations": found})


if __name__ == "__main__":
    main(sys.argv[1:])
