"""Two processes train what one does: the same curve, the same weights in both, and a run goes on with another number of them."""

from __future__ import annotations

import functools
import itertools
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import main as do_jobs
from processes import run_job
from safetensors.torch import load_file

from children import child, exit_code, free_port
from conftest import built_once, tiny_config, write_tiny_data, write_yaml
from img2seq.data.order import Group, cut, share
from img2seq.run.checkpoint import all_checkpoints
from img2seq.run.folder import RunFolder, read_json
from img2seq.run.tables import read_table
from language_models import write_language_model

FROZEN = [  # batch statistics depend on who sees which image
    "inputs.photo.model_config.freeze_pretrained_model=true",
    "inputs.photo.model_config.pretrained_weights=random",
]
NO_DROPOUT = [
    "outputs.captions.model_config.position_dropout=0.0",
    "outputs.captions.model_config.model_init_config.dropout=0.0",
]
EQUAL = [*FROZEN, *NO_DROPOUT]  # what must be so for two processes to compute the same numbers as one
ONE_EPOCH = "globals.basic_experiment.n_epochs=1"
ONE_GROUP = ["globals.basic_experiment.batch_size=2", ONE_EPOCH]
ACCUMULATION = "globals.optimization.gradient_accumulation_steps=2"
PHASES = (  # the encoder's last stage in between
    "[{name: decoder, n_epochs: 1}, {name: encoder, n_epochs: 1, encoder_stages: 1}, "
    "{name: critical, n_epochs: 1, objective: self_critical, batch_size: 45, lr: 0.0005, encoder_stages: 0}]"
)
ALL_CACHED = [
    *FROZEN,
    "inputs.photo.model_config.cache_features=true",
    "inputs.photo.input_type_info.auto_augment=false",
]
FSDP = "globals.accelerator.strategy=fsdp"

# Each is trained once by one process and once by two, and must give the same curve.
VARIANTS = {
    "plain": [],
    "accumulation, clipping": [ACCUMULATION, "globals.optimization.gradient_clipping=0.05"],
    "a process without a share": ONE_GROUP,
    "unequal shares, average, workers": [
        "globals.basic_experiment.batch_size=6",  # of one image and of two
        *("globals.model.ema_decay=0.9", "globals.basic_experiment.dataloader_workers=2"),
    ],
    "swa, sgdm": ["globals.model.n_iter_before_swa=3", "globals.optimization.optimizer=sgdm"],
    "phases, self-critical": [f"globals.phases={PHASES}", *ALL_CACHED],
    "scores of captions": [
        "globals.evaluation_checkpoint.caption_metrics.method=greedy",
        "globals.optimization.lr=0.02",  # soon something is right
    ],
    "noise, adabelief": ["globals.optimization.gradient_noise=0.01", "globals.optimization.optimizer=adabelief"],
    "bf16": ["globals.accelerator.precision=bf16-mixed"],
    "fp16": ["globals.accelerator.precision=16-mixed"],
    "compiled": [
        *(
            "globals.model.compile_model=true",
            ONE_EPOCH,
            "outputs.captions.model_config.model_init_config.num_layers=1",
        ),
        *("inputs.photo.model_config.cache_features=true", "inputs.photo.input_type_info.auto_augment=false"),
    ],
    "fsdp": [FSDP, ONE_EPOCH],
    "fsdp, average, accumulation": [FSDP, ACCUMULATION, "globals.model.ema_decay=0.9", ONE_EPOCH],
    "fsdp, adabelief, a process without a share": [FSDP, "globals.optimization.optimizer=adabelief", *ONE_GROUP],
    "fsdp, swa, sgdm, fp16": [
        *(FSDP, "globals.model.n_iter_before_swa=2", ONE_EPOCH),
        *("globals.optimization.optimizer=sgdm", "globals.accelerator.precision=16-mixed"),
    ],
}
# A language model as decoder: of another experiment file, which has no dropout. transformers is not needed for the others.
LANGUAGE_MODEL = "language model"
if find_spec("transformers"):
    VARIANTS[LANGUAGE_MODEL] = [*FROZEN, ONE_EPOCH]
TOLERANCE = {"bf16": 0.02, "fp16": 0.005, "fsdp, swa, sgdm, fp16": 0.005}  # rounded to 8 and 11 bits in every product
# Trained by two processes in one sitting, and again with a stop after every step: bit by bit the same.
STOPPED = {
    "statistics, dropout, average, accumulation": [
        "inputs.photo.input_type_info.size=[64]",
        "globals.model.ema_decay=0.9",
        ACCUMULATION,
    ],
    "fp16, noise": [
        *("globals.accelerator.precision=16-mixed", "globals.optimization.gradient_noise=0.01", ONE_EPOCH),
        *FROZEN,
    ],
    "fsdp, average": [FSDP, "globals.model.ema_decay=0.9", ONE_EPOCH, *FROZEN],
}
STOPPED["phases, self-critical, dropout, cross-entropy"] = [
    *(
        f"globals.phases={PHASES}",
        "globals.self_critical.dropout=true",
        "globals.self_critical.cross_entropy_weight=0.2",
    ),
    *(*ALL_CACHED, "globals.basic_experiment.batch_size=18"),
]
ACROSS = {"one to two": [], "two to one": [], "one to two, fsdp": [FSDP], "two to one, fsdp": [FSDP]}


def job(folder: Path, name: str, overrides: list[str], sittings: int = 0) -> dict[str, object]:
    place = f"globals.basic_experiment.output_folder={folder / name}"
    file = "language_model.yaml" if name.startswith(LANGUAGE_MODEL) else "experiment.yaml"
    return {"name": name, "experiment": str(folder / file), "overrides": [*overrides, place], "sittings": sittings}


def equal(name: str, overrides: list[str]) -> list[str]:
    """Return the overrides of a variant with those that two processes need to compute the same numbers as one."""
    return overrides if name == LANGUAGE_MODEL else [*EQUAL, *overrides]


# All in one of pytest's workers: another would wait while this one trains.
pytestmark = pytest.mark.xdist_group("processes")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of runs, named by variant and number of processes; trained once."""
    return built_once(tmp_path_factory, "processes", train_all)


def train_all(folder: Path) -> None:
    """Train every variant, in two processes and in this one."""
    write_tiny_data(folder)
    write_yaml(folder / "experiment.yaml", config := tiny_config(folder))
    if LANGUAGE_MODEL in VARIANTS:
        config["outputs"][0]["model_config"] = {
            "model_type": "causal_lm", "pretrained": str(write_language_model(folder / "llama", "llama")), "tuning": "lora",
            "prefix_length": 2, "mapping": "mlp", "dropout": 0.0,
        }  # fmt: skip
        config["outputs"][0]["output_type_info"] = {"max_length": "max"}
        write_yaml(folder / "language_model.yaml", config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
        for name, overrides in VARIANTS.items():
            run_job(job(folder, f"{name}, 1", equal(name, overrides)))
        for name in ("one to two", "one to two, fsdp"):
            run_job(job(folder, name, [*EQUAL, *ACROSS[name]], sittings=3))
        jobs = [job(folder, f"{name}, 2", equal(name, overrides)) for name, overrides in VARIANTS.items()]
        for name, overrides in STOPPED.items():
            jobs += [job(folder, f"{name}, whole", overrides), job(folder, f"{name}, stopped", overrides, sittings=99)]
        for name, overrides in ACROSS.items():
            jobs.append(job(folder, name, [*EQUAL, *overrides], sittings=3 if name.startswith("two") else 99))
        (folder / "jobs.json").write_text(json.dumps(jobs))
        port, logs = free_port(), [folder / "0.err", folder / "1.err"]
        first, second = (child(do_jobs, folder / "jobs.json", rank, port, log=logs[rank]) for rank in (0, 1))
        with first as one, second as other:
            codes = [exit_code(process, patience_s=600) for process in (one, other)]
        assert codes == [0, 0], [log.read_text()[-5000:] for log in logs]
        for name in ("two to one", "two to one, fsdp"):
            run_job(job(folder, name, [*EQUAL, *ACROSS[name]], sittings=99))


def curve(run: Path) -> np.ndarray:
    """Return (steps, 3): loss, learning rate and gradient norm."""
    rows = read_table(RunFolder(run).history_train)
    return np.array(
        [
            [float(row["loss"] or row["reward"]), float(row["learning_rate"]), float(row["gradient_norm"])]
            for row in rows
        ]
    )


def valid_losses(run: Path) -> list[float]:
    return [float(row["valid_loss"]) for row in read_table(RunFolder(run).history_valid)]


def saved(run: Path) -> dict[str, torch.Tensor]:
    newest = all_checkpoints(RunFolder(run).checkpoints)[-1]
    return {
        f"{path.stem}.{name}": t for path in (newest.weights, newest.training) for name, t in load_file(path).items()
    }


def assert_same_curves(one: Path, two: Path, tolerance: float) -> None:
    assert len(curve(one)) == len(curve(two)) > 2
    assert np.isfinite(curve(one)[-1]).all()
    np.testing.assert_allclose(curve(two), curve(one), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(valid_losses(two), valid_losses(one), rtol=tolerance)


@pytest.mark.parametrize("name", VARIANTS)
def test_two_processes_train_along_the_same_curve_as_one(runs: Path, name: str) -> None:
    assert_same_curves(runs / f"{name}, 1", runs / f"{name}, 2", TOLERANCE.get(name, 1e-4))


def test_two_processes_score_the_captions_that_one_scores(runs: Path) -> None:
    found = [read_table(RunFolder(runs / f"scores of captions, {n}").history_valid) for n in (1, 2)]
    for name in ("cider_d", "bleu_4", "distinct"):
        one, two = ([float(row[name]) for row in rows] for rows in found)
        assert two == pytest.approx(one, rel=1e-9)
        assert max(one) > 0


@pytest.mark.parametrize("name", VARIANTS)
def test_two_processes_save_what_one_saves(runs: Path, name: str) -> None:
    one, two = saved(runs / f"{name}, 1"), saved(runs / f"{name}, 2")
    assert {k: (t.shape, t.dtype) for k, t in one.items()} == {k: (t.shape, t.dtype) for k, t in two.items()}
    if (
        name not in TOLERANCE
    ):  # the mean, for the biases of keys have no gradient but rounding, which AdamW makes much of
        apart = torch.cat(
            [(one[k].double() - two[k].double()).abs().flatten() for k in one if k.startswith("weights.")]
        )
        assert float(apart.mean()) < 1e-5


@pytest.mark.parametrize("name", [f"{name}, 2" for name in VARIANTS if "fsdp" not in name])
def test_all_processes_hold_the_same_weights(runs: Path, name: str) -> None:
    assert (runs / f"{name}.0").read_text() == (runs / f"{name}.1").read_text()


def test_batch_statistics_are_those_of_all_processes(runs: Path) -> None:
    name = f"{next(iter(STOPPED))}, whole"
    assert (runs / f"{name}.0").read_text() == (runs / f"{name}.1").read_text()  # buffers are part of the digest
    weights = saved(runs / name)
    means = {k: t for k, t in weights.items() if k.startswith("weights.") and k.endswith("running_mean")}
    assert any(float(t.abs().max()) > 0.01 for t in means.values())


@pytest.mark.parametrize("name", STOPPED)
def test_two_processes_stopped_at_every_step_end_as_if_they_had_not_been(runs: Path, name: str) -> None:
    whole, stopped = saved(runs / f"{name}, whole"), saved(runs / f"{name}, stopped")
    assert whole.keys() == stopped.keys()
    assert not [k for k in whole if not torch.equal(whole[k], stopped[k])]
    assert np.array_equal(curve(runs / f"{name}, whole"), curve(runs / f"{name}, stopped"))
    state = [
        all_checkpoints(RunFolder(runs / f"{name}, {how}").checkpoints)[-1].state() for how in ("whole", "stopped")
    ]
    assert state[0]["scaler"] == state[1]["scaler"]
    assert bool(state[0]["scaler"]) == name.startswith("fp16")


@pytest.mark.parametrize("name", ACROSS)
def test_a_run_goes_on_with_another_number_of_processes(runs: Path, name: str) -> None:
    assert_same_curves(runs / "plain, 1", runs / name, 1e-4)


@pytest.mark.parametrize("name", ["plain", "fsdp"])
def test_every_validation_image_counts_once_and_in_order(runs: Path, name: str) -> None:
    one, two = (read_table(RunFolder(runs / f"{name}, {n}").validation / "images.csv") for n in (1, 2))
    assert [row["image_id"] for row in two] == read_json(RunFolder(runs / f"{name}, 2").split)["valid"]
    assert [row["tokens"] for row in two] == [row["tokens"] for row in one]
    for key in ("loss_nats", "loss_nats_shuffled"):
        assert [float(r[key]) for r in two] == pytest.approx([float(r[key]) for r in one], rel=1e-3)


def test_shares_are_the_batch_and_balanced() -> None:
    rng = np.random.default_rng(0)
    for size, n in itertools.product((1, 2, 3, 8), (1, 2, 7, 40)):
        bounds = np.cumsum(rng.integers(1, 6, n)).tolist()
        groups = [Group(i, tuple(range(*pair))) for i, pair in enumerate(itertools.pairwise([0, *bounds]))]
        (batch,) = cut(groups, 10_000)
        shares = [share(batch, rank, size) for rank in range(size)]
        assert [group for part in shares for group in part] == batch
        n_captions = [sum(len(group.captions) for group in part) for part in shares]
        assert max(n_captions) - min(n_captions) <= 2 * 5
