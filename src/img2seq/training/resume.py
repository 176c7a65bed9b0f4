"""Which run folder may be trained, and what may differ when a run is resumed."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import asdict
from fnmatch import fnmatch

from img2seq.build.facts import read_facts
from img2seq.build.prepare import Prepared
from img2seq.config.load import load_config
from img2seq.config.schema import Experiment
from img2seq.config.show import to_flat
from img2seq.errors import RunError, listed
from img2seq.progress import Announcer
from img2seq.run import save_checkpoint
from img2seq.run.checkpoint import Checkpoint, all_checkpoints
from img2seq.run.folder import RunFolder, check_signed, read_json
from img2seq.run.tables import read_history
from img2seq.run.write import HALF_WRITTEN
from img2seq.training.environment import environment

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}

# All other fields decide what is trained: model, data, tokenizer, order, optimiser. They must stay as they were.
MAY_CHANGE = {
    "globals.basic_experiment.output_folder": "the run was moved or renamed",
    "globals.basic_experiment.n_epochs": "train on, or stop sooner",
    "globals.basic_experiment.max_time_s": "",
    "globals.basic_experiment.dataloader_workers": "",
    "globals.basic_experiment.memory_dataset": "",
    "globals.basic_experiment.cache_folder": "",
    "globals.basic_experiment.device": "another device adds in another order: equal but for rounding",
    "globals.basic_experiment.on_bad_data": "the data themselves are compared",
    "globals.basic_experiment.max_broken_share": "the data themselves are compared",
    "globals.basic_experiment.manual_valid_ids_file": "the split itself is compared",
    "globals.model.compile_model": "equal but for rounding",
    "globals.model.pretrained_checkpoint": "a resumed run has its weights from its own checkpoint",
    "globals.model.pretrained_run": "as pretrained_checkpoint",
    "globals.model.strict_pretrained_loading": "",
    "globals.optimization.lr": "holds from the next step on",
    "globals.optimization.lr_lb": "holds from the next step on",
    "globals.optimization.gradient_clipping": "holds from the next step on",
    "globals.lr_schedule.*": "holds from the next step on",
    "globals.training_control.*": "",
    "globals.evaluation_checkpoint.*": "",
    "globals.visualization_logging.*": "",
    "globals.accelerator.hardware": "",
    "globals.accelerator.strategy": "how many processes share the work",
    "globals.accelerator.devices": "",
    "globals.accelerator.num_nodes": "",
    "globals.basic_experiment.splits": "the split itself is compared",
    "inputs.*.input_info.input_source": "the images themselves are compared",
    "inputs.*.input_type_info.max_pixels": "",
    "inputs.*.input_type_info.max_bytes": "",
    "inputs.*.model_config.pretrained_model": "as pretrained_checkpoint",
    "inputs.*.model_config.pretrained_weights": "as pretrained_checkpoint",
    "outputs.*.output_info.output_source": "the captions themselves are compared",
    "outputs.*.output_info.format": "the captions themselves are compared",
    "outputs.*.output_info.id_column": "",
    "outputs.*.output_info.caption_columns": "",
    "outputs.*.output_info.image_column": "",
    "outputs.*.output_info.delimiter": "",
    "outputs.*.output_info.encoding": "",
    "outputs.*.model_config.pretrained": "the language model itself is compared",
    "outputs.*.output_type_info.vocab_file": "the tokenizer itself is compared",
    "outputs.*.sampling_config.*": "of samples, not of training",
}

# What checkpoints are ranked by: those of before must remain comparable.
RANKS = ("globals.evaluation_checkpoint.best_by", "globals.evaluation_checkpoint.caption_metrics*")


def check_output_folder(run: RunFolder, *, resume: bool) -> None:
    """Raise RunError for a file, for a folder that holds anything but a run or cannot be written, and where there is nothing to resume."""
    if run.path.exists() and not run.path.is_dir():
        raise RunError(f"{run.path}: expected a run folder, found a file")
    for folder in (run.path, run.checkpoints):
        if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
            raise RunError(f"{folder}: cannot be written: Permission denied")
    if run.export.is_file():
        raise RunError(
            f"{run.path}: is an export and cannot be trained on, only captioned with: resume the run it was made from"
        )
    found = {p.name for p in run.path.iterdir() if not p.match(HALF_WRITTEN)} if run.path.is_dir() else set()
    if run.config.name in found or (run.lock.name in found and found <= {run.lock.name, run.log.name}):
        return  # a run, or one whose process was killed before it had begun
    if found:
        why = "nothing to resume" if resume else "exists already, and is not overwritten"
        raise RunError(f"{run.path}: {why}: it is not a run folder (no config.yaml)")
    if resume:
        raise RunError(f"{run.path}: nothing to resume: there is no such run")


def checkpoint_to_resume(
    run: RunFolder, config: Experiment, announce: Announcer, *, resume: bool, overwrite: bool
) -> Checkpoint | None:
    """Return the newest checkpoint that verifies, or None to begin at the first step.

    Raises:
        RunError: if the run exists and neither resume nor overwrite was asked for, if no checkpoint verifies or all are
            gone, or if the configuration differs where it must not.
    """
    if overwrite or not run.config.exists():
        return None
    if not resume:
        raise RunError(
            f"{run.path}: exists already; continue with --resume, start again with --overwrite, or choose another output_folder"
        )
    for name in save_checkpoint.remove_unfinished(run.checkpoints):
        announce.warn(f"{name} was being written when the process ended: removed")
    if not all_checkpoints(run.checkpoints):
        # Killed before the first one, at the latest when the first evaluation was noted?
        if (run.validation / "summary.json").exists() or len(read_history(run.history_valid)) > 1:
            raise RunError(
                f"{run.path}: cannot be resumed: it was evaluated, but {run.checkpoints} is empty or missing; put it back, or start again with --overwrite"
            )
        return None
    _check_config(run, config, announce)
    found = save_checkpoint.newest_valid(run.checkpoints, announce.warn)
    if found is None:
        raise RunError(f"{run.path}: cannot be resumed: none of its checkpoints is whole; start again with --overwrite")
    return save_checkpoint.set_aside_newer(found)


def _check_config(run: RunFolder, config: Experiment, announce: Announcer) -> None:
    check_signed(run)
    before, now = to_flat(load_config(run.config)), to_flat(config)
    changes = {
        key: f"{key}: was {before.get(key, 'absent')}, is now {now.get(key, 'absent')}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    }
    evaluation = config.globals.evaluation_checkpoint
    kept = RANKS if evaluation.best_by != "loss" else RANKS[:1]
    allowed = {
        key
        for key in changes
        if any(fnmatch(key, pattern) for pattern in MAY_CHANGE) and not any(fnmatch(key, pattern) for pattern in kept)
    }
    if refused := [line for key, line in changes.items() if key not in allowed]:
        raise RunError(
            f"{run.path}: cannot be resumed: these fields decide what is trained and must stay as they were:\n"
            f"{listed(refused, most=30)}\nPut them back, or choose another output_folder for a new run"
        )
    for key in sorted(allowed):
        announce.say(f"resuming with {changes[key]}")


def check_same_data_and_model(run: RunFolder, prepared: Prepared, announce: Announcer) -> None:
    """Refuse to resume with data, tokenizer or model other than the run's own; warn of other versions."""
    split = read_json(run.split)
    before = {**asdict(read_facts(run)), **read_json(run.facts).get("data", {})}
    now = {**asdict(prepared.facts), **prepared.data}
    differing = [f"{name}: was {old}, is now {now[name]}" for name, old in before.items() if now[name] != old]
    for side, data in (("train", prepared.train), ("valid", prepared.valid)):
        if split[side] != data.image_ids:
            other = sorted(set(split[side]) ^ set(data.image_ids))
            which = ", ".join(other[:5]) or "in another order"
            differing.append(f"images of the {side} part: were {len(split[side])}, are now {len(data)}: {which}")
    if differing:
        hint = (
            "\nThis run began before splits that come with the data were used: continue with --globals.basic_experiment.splits=random"
            if "test" not in split and any("images of the" in line for line in differing)
            else ""
        )
        raise RunError(
            f"{run.path}: cannot be resumed: data and model must stay as they were:\n{listed(differing, most=30)}{hint}"
        )
    old_environment, new_environment = read_json(run.environment), environment()
    for key in ("python", "packages", "system", "processes", "torch_threads", "devices"):
        if (old := old_environment.get(key)) != (new := new_environment[key]):
            announce.warn(f"{key} was {old}, is now {new}: the results may differ by rounding from an unbroken run's")


def clear(run: RunFolder) -> None:
    """Remove all of a run but its lock and its log; last what tells that it is a run."""
    for path in sorted(run.path.iterdir(), key=lambda path: path == run.config):
        if path not in (run.lock, run.log):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
