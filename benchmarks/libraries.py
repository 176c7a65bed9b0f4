"""Hand-written parts beside what a library has for the same: AdaBelief, dropout, linear layers of few rows.

    python -m benchmarks libraries [--repeats 15]        half a minute

Each is run in turn on one thread of torch, and the time of the processor counts: other work on the machine hardly touches it.
AdaBelief is that of the tutorial's model with one caption an image, and is also compared with itself in float64.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.figures import save
from img2seq.model.cpu.dropout import Dropout
from img2seq.model.decoder import Decoder
from img2seq.model.encoder import ImageEncoder
from img2seq.training.optimizer import AdaBelief

STEPS = 20  # after which parameters are compared with those of float64
ROWS_OF_TOKENS = 700  # of a batch of 64 captions


def median_ms(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median milliseconds of the processor of each way, called in turn."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 2):  # the first two warm up
        for name, way in ways.items():
            begun = time.process_time()
            way()
            if repeat >= 2:
                found[name].append(1000 * (time.process_time() - begun))
    return {name: statistics.median(values) for name, values in found.items()}


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """Return those of the tutorial's model."""
    torch.manual_seed(0)
    encoder = ImageEncoder("resnet18", height=64, width=64, mean=[0.5] * 3, std=[0.5] * 3)
    decoder = Decoder(
        vocabulary=2000, width=128, n_layers=6, n_heads=8, feedforward=512, dropout=0.1, position_dropout=0.1,
        position="encode", n_positions=40, has_memory=True,
    )  # fmt: skip
    return [nn.Parameter(p.detach().to(dtype)) for module in (encoder, decoder) for p in module.parameters()]


def give_gradients(of: Sequence[Tensor]) -> None:
    """Give each parameter the same gradient whatever its type."""
    for number, p in enumerate(of):
        generator = torch.Generator().manual_seed(number)
        p.grad = (
            torch.randn(p.shape, generator=generator)
            .to(p.dtype)
            .mul_(0.01)
            .contiguous(memory_format=torch.preserve_format)
        )


def adabelief(repeats: int) -> dict[str, Any]:
    """Compare ours with timm's, and with torch's fused AdamW, which has less to compute."""
    from timm.optim.adabelief import AdaBelief as TimmAdaBelief

    options: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.01}
    make: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
        "ours": lambda of: AdaBelief(of, **options),
        "timm": lambda of: TimmAdaBelief(of, rectify=False, **options),
        "timm, one tensor at a time": lambda of: TimmAdaBelief(of, rectify=False, foreach=False, **options),
        "torch's fused AdamW": lambda of: torch.optim.AdamW(of, fused=True, **options),
    }
    exact = parameters(torch.float64)
    reference = AdaBelief(exact, **options)
    for _ in range(STEPS):
        give_gradients(exact)
        reference.step()
    ways: dict[str, Callable[[], object]] = {}
    distances: dict[str, float] = {}
    for name, of_parameters in make.items():
        of = parameters()
        optimizer = of_parameters(of)

        for _ in range(STEPS):
            give_gradients(of)
            optimizer.step()
        if "AdamW" not in name:
            distances[name] = max(
                float((a.detach().double() - b.detach()).abs().max()) for a, b in zip(of, exact, strict=True)
            )
        ways[name] = optimizer.step  # of gradients that ours uses up: whatever is left there costs the same
    numbers = sum(p.numel() for p in exact)
    return {"parameters": numbers, "ms": median_ms(ways, repeats), "largest_distance_from_float64": distances}


def dropout(repeats: int) -> dict[str, Any]:
    """Compare ours with torch's on the tokens of a batch."""
    x, ours = torch.randn(ROWS_OF_TOKENS, 128), Dropout(0.1).train()
    return {"ms": median_ms({"ours": lambda: ours(x), "torch": lambda: F.dropout(x, 0.1)}, 20 * repeats)}


@torch.inference_mode()
def linear(repeats: int) -> dict[str, Any]:
    """Compare a linear layer of few rows: weights as torch keeps them, by input as ours, and packed by oneDNN."""
    found = {}
    for rows in (1, 5, 160):
        x, layer = torch.randn(rows, 256), nn.Linear(256, 1024).eval()
        by_input = nn.Linear(256, 1024).eval()
        by_input.weight.data = by_input.weight.data.t().contiguous().t()
        packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows)  # as torch.compile does
        found[rows] = median_ms(
            {
                "as torch keeps it": lambda x=x, layer=layer: [layer(x) for _ in range(50)],  # type: ignore[misc]
                "by input": lambda x=x, layer=by_input: [layer(x) for _ in range(50)],  # type: ignore[misc]
                "packed by oneDNN": lambda x=x, packed=packed, layer=layer: [  # type: ignore[misc]
                    torch.ops.mkldnn._linear_pointwise(x, packed, layer.bias, "none", [], "") for _ in range(50)
                ],
            },
            repeats,
        )
    return {"ms_of_50": found}


def main(line: list[str]) -> None:
    """Print and write benchmarks/results/libraries.json."""
    options = argparse.ArgumentParser(prog="python -m benchmarks libraries")
    options.add_argument("--repeats", type=int, default=15)
    repeats = options.parse_args(line).repeats
    torch.set_num_threads(1)
    found = {"adabelief": adabelief(repeats), "dropout": dropout(repeats), "linear": linear(repeats)}
    for name, of_part in found.items():
        print(name)
        for what, values in of_part.items():
            print(f"    {what}: {values}")
    save("libraries", found)
