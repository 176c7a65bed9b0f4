"""Images a second through a frozen encoder, tf_efficientnet_lite0 at 224 pixels, batches of 32: torch, and what we use.

python -m benchmarks encoder
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch

from benchmarks.figures import save, show, spread
from img2seq.model.encoder import ImageEncoder
from img2seq.model.onnx_encoder import accelerate

BATCH, SIZE, WARM, REPEATS = 32, 224, 2, 9


def main(line: list[str]) -> None:
    """Print the table and write benchmarks/results/encoder.json."""
    options = {"height": SIZE, "width": SIZE, "mean": [0.5] * 3, "std": [0.5] * 3, "frozen": True}
    torch.manual_seed(0)
    plain = ImageEncoder("tf_efficientnet_lite0", **options).eval()  # type: ignore[arg-type]
    encoder = copy.deepcopy(plain)
    first = copy.deepcopy(plain.backbone).to(memory_format=torch.contiguous_format)
    pixels = torch.randint(256, (BATCH, SIZE, SIZE, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    floats = torch.addcmul(-plain.shift, pixels.float(), plain.scale).contiguous()
    if not accelerate(encoder):
        print("img2seq[fast] is not installed: torch is what we use")
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "torch, channels first": lambda: first.forward_features(floats),  # type: ignore[operator]
        "torch, channels last": lambda: plain(pixels),
        "img2seq": lambda: encoder(pixels),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    with torch.inference_mode():
        reference = plain(pixels)
        difference = float((encoder(pixels) - reference).abs().max())
        for repeat in range(WARM + REPEATS):  # in turn, so that a slow spell of the machine meets all of them
            for name, way in ways.items():
                begun = time.perf_counter()
                way()
                if repeat >= WARM:
                    speeds[name].append(BATCH / (time.perf_counter() - begun))
    base = spread(speeds["torch, channels last"])["median"]
    for name, values in speeds.items():
        print(f"{name:<24}{show(spread(values)):>22} images/s{spread(values)['median'] / base:>7.1f}x")
    print(f"largest difference {difference:.1e}, features up to {float(reference.abs().max()):.1f}")
    save("encoder", {"images_per_s": {k: spread(v) for k, v in speeds.items()}, "largest_difference": difference})
