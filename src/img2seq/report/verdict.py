"""What a finished run is worth, in a few sentences, and the commands that come next."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path

from img2seq.config.load import load_config
from img2seq.config.pretrained_run import of_text_only_baseline
from img2seq.errors import Img2SeqError
from img2seq.metrics.most_frequent import cider_by_image
from img2seq.progress import counted
from img2seq.report.comparison import Run, read_runs, shuffled_gain
from img2seq.report.constant import against_constant
from img2seq.run.folder import RunFolder, read_json, read_model_sections
from img2seq.run.tables import read_history

REPEATED = 0.5  # with fewer different captions than this, they say little of their pictures


def findings(path: str | Path) -> list[str]:
    """Return what to think of a finished run, a sentence each. Raises RunError for a run that is not finished."""
    (run,) = read_runs([path])
    return [text for text in (_worth_of_images(run), _beats_constant(run), _repetition(run), _evaluations(run)) if text]


def next_commands(path: str | Path) -> list[str]:
    """Return commands that go on from a finished run and can be copied as they are."""
    run = RunFolder(path)
    folder, others = str(run.path), _comparable_runs(run)
    if not _sees_images(run):
        commands = [["compare", folder, other] for other, has_image in others if has_image][:1]
        commands = commands or [["runs", "show", folder]]
    else:
        commands = [["caption", folder, str(run.validation / "pictures")], ["evaluate", folder]]
        baselines = [other for other, has_image in others if not has_image]
        if not baselines:
            baselines = [f"{folder}_text"]
            to_there = f"--globals.basic_experiment.output_folder={baselines[0]}"
            commands.append(["train", str(run.config), "--inputs=[]", *_without_beginning(run), to_there])
        commands.append(["compare", baselines[0], folder])
    return [shlex.join(["img2seq", *words]) for words in commands]


def _without_beginning(run: RunFolder) -> list[str]:
    """Return what a text-only baseline needs in place of the weights that a run began with: they see images."""
    config = load_config(run.config)
    options = config.globals.model
    checkpoint = ["--globals.model.pretrained_checkpoint=null"] if options.pretrained_checkpoint else []
    return of_text_only_baseline(config.output.name, run.tokenizer) if options.pretrained_run else checkpoint


def _worth_of_images(run: Run) -> str:
    if not run.has_image:
        return "it sees no image: a run with images must beat its loss"
    measured = shuffled_gain(run)
    if measured is None:
        return "what the image is worth is not known: that takes two validation images"
    worth, (low, high) = measured
    n_images = counted(len(run.losses), "image")
    interval = f"{worth:.4f} nats per token (95 % interval {low:.4f} to {high:.4f}, {n_images})"
    if low > 0:
        return f"the image is worth {interval}: by this the loss rises under other pictures"
    return f"the image may be worth nothing: under other pictures the loss rises by {interval}"


def _beats_constant(run: Run) -> str:
    """Return how the captions of the gallery's images compare with the most frequent training caption; `evaluate` takes all images."""
    caption = run.summary.get("most_frequent_caption")  # not written by earlier versions
    if not run.has_image or not isinstance(caption, str):
        return ""
    entries = read_json(run.folder.validation / "captions.json")
    references = {entry["image_id"]: entry["true"] for entry in entries}
    scores = cider_by_image({entry["image_id"]: entry["caption"] for entry in entries}, references)
    measured = against_constant(scores, references, caption)
    return "" if measured is None else measured.sentence


def _repetition(run: Run) -> str:
    captions = [entry["caption"] for entry in read_json(run.folder.validation / "captions.json")]
    n_different = len(set(captions))
    if not run.has_image or len(captions) < 2 or n_different > REPEATED * len(captions):
        return ""
    return f"captions repeat: {len(captions)} pictures got {counted(n_different, 'different caption')}; more training or more data may help"


def _evaluations(run: Run) -> str:
    if len(read_history(run.folder.history_valid)) > 1:
        return ""
    return "there was one evaluation, so no earlier step could be the best: lower evaluation_checkpoint.sample_interval"


def _comparable_runs(run: RunFolder) -> list[tuple[str, bool]]:
    """Return the finished runs beside this one that have its vocabulary, the newest first, and whether they see images."""
    vocabulary = read_json(run.validation / "summary.json")["tokenizer"]
    found = []
    for path in run.path.resolve().parent.glob("*/validation/summary.json"):
        other = RunFolder(run.path.parent / path.parents[1].name)
        if other.path.resolve() == run.path.resolve() or not other.config.is_file():
            continue
        with suppress(Img2SeqError, OSError):  # another run may be damaged, or be removed meanwhile
            summary = read_json(path)
            if isinstance(summary, dict) and summary.get("tokenizer") == vocabulary:
                found.append((path.stat().st_mtime, str(other.path), _sees_images(other)))
    return [(other, has_image) for _, other, has_image in sorted(found, key=lambda entry: -entry[0])]


def _sees_images(run: RunFolder) -> bool:
    return bool(read_model_sections(run).inputs)
