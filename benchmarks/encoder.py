"""Images a second through a frozen encoder, tf_efficientnet_lite0 at 224 pixels, batches of 32: torch, and what we use.

python -m benchmarks encoder
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from benchmarks.figures import save, show, spread
from img2seq.model.encoder import ImageEncoder
from img2seq.model.runtime import accelerate

BATCH, SIZE, REPEATS = 32, 224, 7


def main(line: list[str]) -> None:
    """Print the table and write benchmarks/results/encoder.json."""
    options = {"height": SIZE, "width": SIZE, "mean": [0.5] * 3, "std": [0.5] * 3, "frozen": True}
    torch.manual_seed(0)
    encoder = ImageEncoder("tf_efficientnet_lite0", **options).eval()  # type: ignore[arg-type]
    pixels = torch.randint(256, (BATCH, SIZE, SIZE, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    plain = encoder.backbone.to(memory_format=torch.contiguous_format)
    floats = torch.addcmul(-encoder.shift, pixels.float(), encoder.scale)
    ways: dict[str, Callable[[], torch.Tensor]] = {}
    speeds: dict[str, list[float]] = {}
    rows = [("torch, channels first", lambda: plain.forward_features(floats.contiguous()))]  # type: ignore[operator]
    with torch.inference_mode():
        reference = rows[0][1]()
        speeds["torch, channels first"] = measure(rows[0][1])
        encoder.backbone.to(memory_format=torch.channels_last)
        ways["torch, channels last"] = lambda: encoder(pixels)
        speeds["torch, channels last"] = measure(ways["torch, channels last"])
        if not accelerate(encoder):
            print("img2seq[fast] is not installed: torch is what we use")
        speeds["img2seq"] = measure(lambda: encoder(pixels))
        difference = float((encoder(pixels) - reference.flatten(2).transpose(1, 2)).abs().max())
    base = spread(speeds["torch, channels last"])["median"]
    for name, values in speeds.items():
        print(f"{name:<24}{show(spread(values)):>22} images/s{spread(values)['median'] / base:>7.1f}x")
    print(f"largest difference {difference:.1e}, features up to {float(reference.abs().max()):.1f}")
    save("encoder", {"images_per_s": {k: spread(v) for k, v in speeds.items()}, "largest_difference": difference})


def measure(way: Callable[[], torch.Tensor]) -> list[float]:
    """Return images a second of REPEATS calls after a warm-up."""
    way()
    way()
    found = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        way()
        found.append(BATCH / (time.perf_counter() - begun))
    return found
