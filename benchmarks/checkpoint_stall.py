"""How long writing a checkpoint keeps training waiting, beside training and in line with it.

    python -m benchmarks.checkpoint_stall

A transformer of about 20 million parameters is trained on random numbers with AdamW. Rounds of steps with a checkpoint
(weights and optimiser state, 227 MB) saved after the first of them take turns with rounds without. Of each save is told, in
ordinary steps: by how much its longest step was longer, the call itself included, and how much longer the whole round took.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.figures import save
from img2seq.model.cpu.memory import keep_freed_memory
from img2seq.run.saver import Saver

STEPS = 10  # of a round; more, until the checkpoint is on disk


class Training:
    """A model, and what a checkpoint of it holds."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True)
        self.model = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), fused=True)
        self.x = torch.randn(8, 32, 512)

    def step(self) -> None:
        self.model(self.x).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        states = self.optimizer.state_dict()["state"].items()
        training = {f"{number}.{name}": tensor for number, values in states for name, tensor in values.items()}
        return self.model.state_dict(), training

    def round(self, saver: Saver | None = None, *, step: int = 0, beside: bool = True) -> list[float]:
        """Return the seconds of each step of a round, with a save after the first if there is something to save with."""
        times: list[float] = []
        while len(times) < STEPS or (saver is not None and saver.is_writing):
            begun = time.perf_counter()
            self.step()
            if saver is not None and not times:
                saver.save(step, *self.tensors(), {"valid_loss": None})
                if not beside:
                    saver.wait()
            times.append(time.perf_counter() - begun)
        return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="of training; fewer than cores leave one to write"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    training, folder = Training(), Path(tempfile.mkdtemp(prefix="stall-"))
    training.round()
    quiet, rounds = [], {"in line": list[list[float]](), "beside": list[list[float]]()}
    try:
        with Saver(folder / "in line", 1) as one, Saver(folder / "beside", 1) as other:
            other.prepare(*training.tensors())
            for number in range(arguments.saves + 1):
                for saver, (name, found) in zip((one, other), rounds.items(), strict=True):
                    quiet.append(training.round())
                    found.append(training.round(saver, step=number + 1, beside=name == "beside"))
    finally:
        shutil.rmtree(folder)
    step_s = statistics.median(time for times in quiet for time in times)
    figures: dict[str, float | int] = {
        "threads": torch.get_num_threads(),
        "saves": arguments.saves,
        "parameters": sum(p.numel() for p in training.model.parameters()),
        "step_s": round(step_s, 3),
    }
    for name, found in {"no save": quiet, **rounds}.items():
        first, *others = found if name != "no save" else [[], *quiet]
        delays = [max(times) / step_s - 1 for times in others]
        sums = [sum(times) / step_s - len(times) for times in others]
        figures |= {
            f"{name}: longest delay of a step, in steps, median": round(statistics.median(delays), 2),
            f"{name}: longest delay of a step, in steps, most": round(max(delays), 2),
            f"{name}: delay of the round, in steps, median": round(statistics.median(sums), 2),
            f"{name}: delay of the round, in steps, most": round(max(sums), 2),
        }
        if first:
            figures[f"{name}: steps until on disk, most"] = max(map(len, found))
            figures[f"{name}: longest delay of a step, in steps, first save"] = round(max(first) / step_s - 1, 2)
    save(f"checkpoint_stall_{torch.get_num_threads()}_threads", figures)
    print("\n".join(f"{name:<64}{value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
