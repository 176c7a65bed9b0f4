"""What state a run is in, on one screen; and whether all that it holds is still what was written."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from img2seq.build.began_with import describe_beginning
from img2seq.build.facts import read_facts
from img2seq.config.causal_lm import CausalLM
from img2seq.config.load import load_config
from img2seq.config.schema import Experiment
from img2seq.errors import Img2SeqError, RunError
from img2seq.progress import counted
from img2seq.report.comparison_page import clock
from img2seq.report.evaluation_page import METRIC_NAMES
from img2seq.report.onnx_state import describe_onnx_export, in_words, verify_onnx_export
from img2seq.run.captioning_folder import is_onnx_export
from img2seq.run.checkpoint import Checkpoint, all_checkpoints, damage
from img2seq.run.folder import RunFolder, check_signed, open_run, read_json, read_tokenizer
from img2seq.run.hub import local_folder
from img2seq.run.lock import owner_of
from img2seq.run.stored_decoding import read_stored, weights_digest
from img2seq.run.tables import read_history

SCORES = ("bleu_4", "cider_d", "distinct")  # columns of the history, where captions are scored while a run trains

# --- show


def describe_run(path: str | Path) -> str:
    """Return a run's state on one screen. Raises RunError if there is no such run or its files cannot be read."""
    if is_onnx_export(folder := local_folder(path)):
        return describe_onnx_export(folder, size=folder_size(folder))
    run = open_run(path)
    if run.export.is_file():
        return _describe_export(run)
    config, facts = load_config(run.config), read_facts(run)
    newest, state = _newest_readable(run)
    with _expecting_a_runs(run.facts):
        parameters = "{all:,}, of which {trained:,} are trained".format(**read_json(run.facts)["parameters"])
    with _expecting_a_runs(run.split):
        n_train, n_valid = (len(read_json(run.split)[side]) for side in ("train", "valid"))
    finished = run.validation / "summary.json"
    with _expecting_a_runs(finished):
        is_finished = newest is not None and finished.is_file() and read_json(finished)["steps"] == newest.step
    owner = owner_of(run)
    if owner is not None and owner.may_live:
        is_now = f"being trained by {owner}"
    else:
        is_now = "finished" if is_finished else "interrupted" if newest else "interrupted before its first checkpoint"
    last = [int(row["iteration"]) for row in read_history(run.history_train)[-1:]]
    with _expecting_a_runs((newest.path if newest else run.path) / "state.json"):
        position, n_steps = state.get("position", {"step": 0, "epoch": 0, "elapsed_s": 0.0}), state.get("n_steps")
        step = max(position["step"], *last, 0)
        reached = f"step {step:,}" + (f" of {n_steps:,} ({step / n_steps:.0%})" if n_steps else "")
        phases = config.globals.phases
        n_epochs = sum(phase.n_epochs for phase in phases) or config.globals.basic_experiment.n_epochs
        reached += f", epoch {position['epoch'] + (not is_finished)} of {n_epochs}"
        reached += f", phase {phases[position.get('phase', 0)].name}" if phases and not is_finished else ""
        time = f"{clock(position['elapsed_s'])} up to the last checkpoint"
    with _expecting_a_runs(run.history_valid):
        history, by = read_history(run.history_valid), config.globals.evaluation_checkpoint.best_by
        best, beginning = _describe_best(history, by), _describe_beginning(run, history, by)
    lines = {
        "state": is_now,
        "reached": reached,
        "best": best,
        "checkpoint": _describe_checkpoint(newest, state),
        "time": time,
        **beginning,
        "model": _describe_model(config),
        "parameters": parameters,
        **_describe_stored(run),
        "data": f"{counted(n_train, 'image')} to train on, {n_valid:,} for validation; {facts.vocabulary:,} tokens",
        "training": _describe_training(config),
        "size": f"{folder_size(run.path)} on disk",
    }
    if is_now != "finished" and not is_now.startswith("being"):
        lines["resume with"] = _how_to_resume(run, config)
    return "\n".join([str(path), *(f"  {name:<12}{text}" for name, text in lines.items())])


def _describe_export(run: RunFolder) -> str:
    config, facts = load_config(run.config), read_facts(run)
    newest, state = _newest_readable(run)
    with _expecting_a_runs(run.export):
        export = read_json(run.export)
        made_from = "step {step:,} of {run}, by img2seq {img2seq}".format(**export)
        if steps := export.get("averaged_steps"):
            made_from = (
                f"the mean of steps {', '.join(map(str, steps))} of {export['run']}, by img2seq {export['img2seq']}"
            )
    lines = {
        "state": "exported: to caption and to serve with, not to train on",
        "made from": made_from,
        "checkpoint": _describe_checkpoint(newest, state),
        "model": _describe_model(config),
        "vocabulary": f"{facts.vocabulary:,} tokens; captions of at most {facts.max_length:,}",
        **_describe_stored(run),
        "size": f"{folder_size(run.path)} on disk",
    }
    return "\n".join([str(run.path), *(f"  {name:<12}{text}" for name, text in lines.items())])


@contextmanager
def _expecting_a_runs(path: Path) -> Iterator[None]:
    """Turn whatever a file makes fail that holds something else than a run's into one error that names it."""
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise RunError(f"{path}: not what a run writes there: {error!r}") from error


def _newest_readable(run: RunFolder) -> tuple[Checkpoint | None, dict[str, Any]]:
    """Return the newest checkpoint with a state, and that state: a running training may remove both."""
    for checkpoint in reversed(all_checkpoints(run.checkpoints)):
        with suppress(RunError):
            return checkpoint, checkpoint.state()
    return None, {}


def _describe_best(history: list[dict[str, str]], by: str) -> str:
    """Return the best evaluation of a run's history, in words."""
    if not history:
        return "no evaluation yet"
    of_all, best = counted(len(history), "evaluation"), _best(history, by)
    if by == "loss":
        return f"validation loss {float(best['valid_loss']):.4f} nats per token, at step {int(best['iteration']):,}; {of_all}"
    found = {"valid_loss": float(best["valid_loss"]), "scores": {name: float(best[name]) for name in SCORES}}
    return f"{describe_evaluation(found, best_by=by)}, at step {int(best['iteration']):,}; {of_all}"


def _best(history: list[dict[str, str]], by: str) -> dict[str, str]:
    """Return the first of the best evaluations."""
    if by == "loss":
        return min(history, key=lambda row: (float(row["valid_loss"]), int(row["iteration"])))
    scored = [row for row in history if row.get(by)]
    return max(scored, key=lambda row: (float(row[by]), -int(row["iteration"])))


def describe_evaluation(found: Mapping[str, Any], mark: str = "", *, best_by: str = "loss") -> str:
    """Return loss and scores that a checkpoint keeps, in words: first, with a mark, what checkpoints are chosen by."""
    if found.get("valid_loss") is None:
        return "not evaluated"
    said = {"loss": f"validation loss {found['valid_loss']:.4f}"}
    if scores := found.get("scores"):
        said |= {name: f"{METRIC_NAMES[name]} {scores[name]:.4f}" for name in ("cider_d", "bleu_4")}
        said["distinct"] = f"{scores['distinct']:.0%} of captions distinct"
    first = f"{said.pop(best_by)}{mark}"
    return ", ".join([first, *said.values()])


def _describe_beginning(run: RunFolder, history: list[dict[str, str]], by: str) -> dict[str, str]:
    """Return what a run began with, where that is another captioner, and what training has added."""
    if not run.pretrained.is_file():
        return {}
    with _expecting_a_runs(run.pretrained):
        lines = {"began with": describe_beginning(read_json(run.pretrained))}
    gained = describe_fine_tuning(history, by)
    return lines | ({"fine-tuning": gained} if gained else {})


def describe_fine_tuning(history: list[dict[str, str]], by: str) -> str:
    """Return loss and CIDEr-D of the captioner that a run began with, evaluated at step 0, and of its best step; "" of other runs."""
    if not history or int(history[0]["iteration"]):
        return ""
    before, after = history[0], _best(history, by)
    said = {"loss": ("valid_loss", ".2f", " nats per token"), "CIDEr-D": ("cider_d", ".3f", "")}
    return ", ".join(
        f"{title} {float(before[name]):{digits}} -> {float(after[name]):{digits}}{unit}"
        for title, (name, digits, unit) in said.items()
        if before.get(name) and after.get(name)
    )


def _describe_checkpoint(checkpoint: Checkpoint | None, state: Mapping[str, Any]) -> str:
    if checkpoint is None:
        return "none"
    return f"{checkpoint.path.name}, {describe_evaluation(state)}, {folder_size(checkpoint.path)}"


def _describe_stored(run: RunFolder) -> dict[str, str]:
    """Return how captions are searched for where it is stored with the run."""
    if not (stored := read_stored(run, {})):
        return {}
    words = in_words(stored["decoding"])
    if (digest := stored.get("weights_sha256")) is not None:
        steps = [one.step for one in all_checkpoints(run.checkpoints) if _digest(one) == digest]
        words += f"; chosen for step {steps[0]:,}" if steps else "; not used: chosen for a checkpoint that is not there"
    return {"decoding": words}


def _digest(checkpoint: Checkpoint) -> str | None:
    with suppress(RunError, LookupError, TypeError):  # damaged, or removed by a running training
        return weights_digest(checkpoint)
    return None


def _describe_model(config: Experiment) -> str:
    encoders = [
        f"{entry.name}: {entry.model.model_type} at {' x '.join(map(str, entry.input_type_info.height_width))}"
        for entry in config.inputs
    ] or ["text only"]
    decoder = config.output.model
    if isinstance(decoder, CausalLM):
        return f"{', '.join(encoders)}; decoder {decoder.in_words}"
    size = decoder.model_init_config
    return f"{', '.join(encoders)}; decoder of {size.num_layers} layers, {size.num_heads} heads, width {decoder.embedding_dim}"


def _describe_training(config: Experiment) -> str:
    basic, optimization = config.globals.basic_experiment, config.globals.optimization
    steps = f" x {n}" if (n := optimization.gradient_accumulation_steps) else ""
    return (
        f"{optimization.optimizer}, learning rate {optimization.lr:g} ({config.globals.lr_schedule.lr_schedule}), "
        f"{basic.batch_size}{steps} captions a step, seed {basic.seed}, on {basic.device}"
    )


def _how_to_resume(run: RunFolder, config: Experiment) -> str:
    command = ["img2seq", "train", str(run.config), "--resume"]
    folder = config.globals.basic_experiment.output_folder
    if Path(folder).resolve() != run.path.resolve():  # moved, or trained from another working folder
        command.append(f"--globals.basic_experiment.output_folder={run.path}")
    return shlex.join(command)


def folder_size(folder: Path) -> str:
    """Return how much the files of a folder hold, in words."""
    n_bytes = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # a running training removes old checkpoints
                n_bytes += (Path(root) / name).stat().st_size
    return f"{n_bytes / 1e6:,.1f} MB"


# --- verify


def verify_run(path: str | Path) -> tuple[str, bool]:
    """Return what was found in each file that training and captioning depend on, and whether all of it is whole."""
    if is_onnx_export(folder := local_folder(path)):
        return verify_onnx_export(folder)
    run = open_run(path)
    parts: dict[str, Callable[[RunFolder], object]] = {
        "config.yaml": _config,
        "tokenizer.json and facts.json": _tokenizer,
        "split.json": _split,
    }
    parts |= {run.decoding.name: _describe_stored} if run.decoding.exists() else {}
    if run.export.exists() and not run.split.exists():
        del parts["split.json"]  # of training
    found = [(name, _problems_of(run, part)) for name, part in parts.items()]
    checkpoints = all_checkpoints(run.checkpoints)
    found += [(checkpoint.path.name, damage(checkpoint)) for checkpoint in checkpoints]
    if not checkpoints:
        found.append(("checkpoints", [f"{run.checkpoints}: there are none"]))
    lines = [
        f"  {'BAD' if problems else 'ok ':<5}{name}" + "".join(f"\n       {p}" for p in problems)
        for name, problems in found
    ]
    lines += [
        f"  note {path.name}: left by a process that was killed; the next --resume removes it"
        for path in sorted(run.checkpoints.glob(".tmp-step-*"))
    ]
    return "\n".join([str(path), *lines]), not any(problems for _, problems in found)


def _problems_of(run: RunFolder, part: Callable[[RunFolder], object]) -> list[str]:
    try:
        part(run)
    except Img2SeqError as error:
        return [str(error)]
    return []


def _config(run: RunFolder) -> None:
    check_signed(run, run.config)
    load_config(run.config)


def _tokenizer(run: RunFolder) -> None:
    check_signed(run, run.tokenizer, run.facts)
    facts, tokenizer = read_facts(run), read_tokenizer(run)
    if tokenizer.digest != facts.tokenizer_digest or len(tokenizer) != facts.vocabulary:
        raise RunError(f"{run.tokenizer}: not the tokenizer this run was trained with ({run.facts.name} names another)")


def _split(run: RunFolder) -> None:
    check_signed(run, run.split)
    split: Any = read_json(run.split)
    try:
        train, valid = set(split["train"]), set(split["valid"])
    except (TypeError, KeyError) as error:
        raise RunError(f"{run.split}: expected the image ids of train and valid: {error}") from error
    if not train or not valid or train & valid:
        raise RunError(f"{run.split}: expected two parts without a common image, found {len(train & valid)} in both")
