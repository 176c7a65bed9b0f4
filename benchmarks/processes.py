"""The same run by one process and by two: loss curves side by side, and captions a second.

    python -m benchmarks processes

Writes benchmarks/results/processes.json and docs/images/processes.png. Generated scenes, a small model without dropout, whose
random numbers would differ between the two; every process has one thread.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import save
from benchmarks.photographs import ROOT
from img2seq.demo.dataset import write_dataset

COUNTS = (1, 2)
EXPERIMENT = """\
globals:
  basic_experiment: {{output_folder: {folder}/run, n_epochs: 4, batch_size: 64, captions_per_image: 2, manual_valid_ids_file: {folder}/data/valid_ids.txt}}
  optimization: {{lr: 0.001}}
  evaluation_checkpoint: {{sample_interval: 40}}
inputs:
  - input_info: {{input_source: {folder}/data/images, input_name: image, input_type: image}}
    input_type_info: {{size: [32], auto_augment: false}}
    model_config: {{model_type: resnet18}}
fusion: {{model_type: pass-through}}
outputs:
  - output_info: {{output_source: {folder}/data/captions.csv, output_name: caption, output_type: sequence}}
    output_type_info: {{max_length: 32, min_freq: 1}}
    model_config: {{embedding_dim: 64, position_dropout: 0.0, model_init_config: {{num_layers: 2, dropout: 0.0}}}}
"""


def curve(path: Path, column: str) -> list[tuple[int, float]]:
    """Return a column of a history by step."""
    with path.open(encoding="utf-8", newline="") as file:
        return [(int(row["iteration"]), float(row[column])) for row in csv.DictReader(file)]


def main(line: list[str]) -> None:
    """Run both, compare, draw."""
    import matplotlib.pyplot as plt

    train, valid, speed = {}, {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder / "data", n_train=900, n_valid=150, seed=0, size=64)
        (folder / "experiment.yaml").write_text(EXPERIMENT.format(folder=folder))
        for count in COUNTS:
            shutil.rmtree(folder / "run", ignore_errors=True)
            start = [] if count == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
            command = [sys.executable, *start, "-m", "img2seq", "train", str(folder / "experiment.yaml")]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
            subprocess.run(command, check=True, env=environment, capture_output=True)
            train[count] = curve(folder / "run/history_train.csv", "loss")
            valid[count] = curve(folder / "run/history_valid.csv", "valid_loss")
            speed[count] = curve(folder / "run/history_valid.csv", "captions_per_s")[-1][1]
    apart = max(abs(one - two) for (_, one), (_, two) in zip(train[1], train[2], strict=True))
    apart_valid = max(abs(one - two) for (_, one), (_, two) in zip(valid[1], valid[2], strict=True))
    print(f"largest distance of the curves: training {apart:.2e}, validation {apart_valid:.2e} nats per token")
    print(", ".join(f"{count} process(es) {value:.0f} captions/s" for count, value in speed.items()))
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for count, style in zip(COUNTS, ({"lw": 4, "alpha": 0.4}, {"lw": 1.2}), strict=True):
        axes[0].plot(*zip(*train[count], strict=True), label=f"{count} process{'es' * (count > 1)}", **style)
        axes[1].plot(*zip(*valid[count], strict=True), marker="o", ms=3, **style)
    for axis, title in zip(axes, ("training loss", "validation loss"), strict=True):
        axis.set(title=title, xlabel="step", ylabel="nats per token")
    axes[0].legend()
    figure.savefig(ROOT / "docs" / "images" / "processes.png", dpi=110)
    save("processes", {"captions_per_s": speed, "largest_distance": {"training": apart, "validation": apart_valid}})
