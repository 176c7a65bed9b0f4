"""How long writing a checkpoint keeps training waiting, beside training and in line with it.

    python -m benchmarks.checkpoint_stall

A transformer of about 20 million parameters is trained on random numbers with AdamW; a checkpoint (weights and optimiser
state, 240 MB) is saved after every tenth step. The stall of a save is how much longer that step and the next two took,
the save included, than three ordinary steps.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from benchmarks.figures import save
from img2seq.training.memory import keep_freed_memory
from img2seq.training.saver import Saver

EVERY = 10  # steps between checkpoints
AFTER = 3  # steps over which a write beside training is felt


def step_times(folder: Path, *, n_saves: int, beside: bool) -> tuple[list[float], int]:
    """Return the seconds of each step, what the save took included, and the number of parameters."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True)
    model = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    x = torch.randn(8, 32, 512)
    times = []
    with Saver(folder, 1) as saver:
        for step in range(1, (n_saves + 1) * EVERY):
            begun = time.perf_counter()
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if step % EVERY == 0:
                states = optimizer.state_dict()["state"].items()
                training = {f"{number}.{name}": tensor for number, values in states for name, tensor in values.items()}
                saver.save(step, model.state_dict(), training, {"valid_loss": None})
                if not beside:
                    saver.wait()
            times.append(time.perf_counter() - begun)
    return times, sum(p.numel() for p in model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="of training; fewer than cores leave one to write"
    )
    arguments = parser.parse_args()
    n_saves = arguments.saves
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    figures: dict[str, float | int] = {"threads": torch.get_num_threads(), "saves": n_saves}
    for name, beside in (("in line", False), ("beside", True)):
        folder = Path(tempfile.mkdtemp(prefix="stall-"))
        try:
            times, figures["parameters"] = step_times(folder, n_saves=n_saves, beside=beside)
        finally:
            shutil.rmtree(folder)
        ordinary = statistics.median(t for i, t in enumerate(times, 1) if i > EVERY and i % EVERY >= AFTER)
        stalls = [
            sum(times[step - 1 : step - 1 + AFTER]) - AFTER * ordinary
            for step in range(EVERY, n_saves * EVERY + 1, EVERY)
        ]
        figures |= {
            f"step_s {name}": round(ordinary, 3),
            f"stall_s {name}, median": round(statistics.median(stalls), 3),
            f"stall_s {name}, longest": round(max(stalls), 3),
            f"stall in steps {name}, median": round(statistics.median(stalls) / ordinary, 2),
        }
    save(f"checkpoint_stall_{torch.get_num_threads()}_threads", figures)
    print("\n".join(f"{name:<36}{value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
