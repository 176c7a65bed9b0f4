"""The card of an export: README.md as the Hugging Face hub reads it, with what the run knows and nothing that it does not.

Front matter: https://github.com/huggingface/hub-docs/blob/main/modelcard.md. Scores are those of this very checkpoint; the language, the data
set's name and the licence are a person's to say. Nothing of the machine is named. The last line signs the text: a card that a person has
edited is not replaced.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml
from PIL import Image

from img2seq.build.trained import TrainedRun
from img2seq.config.inputs import ImageInput
from img2seq.config.load import load_config
from img2seq.data.tokenizer import SPECIAL_TOKENS
from img2seq.export.measured import HUB_METRICS, Measured, evaluations_of
from img2seq.export.places import remove_places
from img2seq.progress import counted
from img2seq.run.folder import read_json
from img2seq.run.write import to_disk, write_text

TEMPLATE = Path(__file__).with_name("model_card.md")
CARD, CURVE, CAPTIONS = "README.md", "figures/training_curve.png", "figures/captions.jpg"
SIDE = 1200  # pixels of a figure, at most
_SIGNED = re.compile(r"<!-- img2seq sha256 ([0-9a-f]{64}) -->\n\Z")


@dataclass(frozen=True)
class Said:
    """What only a person can say of a model.

    Attributes:
        repository: OWNER/NAME on the hub.
        license: as the hub calls it, such as cc-by-4.0.
        languages: codes of the captions' languages.
        datasets: names of what it was trained on.
    """

    repository: str | None = None
    license: str | None = None
    languages: Sequence[str] = ()
    datasets: Sequence[str] = ()


class Raw(str):
    """Text that is Markdown already."""


def write_model_card(folder: Path, trained: TrainedRun, said: Said, *, name: str) -> list[str]:
    """Make a written export ready for the hub: card, figures, no paths of this machine; return what to look at before it is published.

    Args:
        folder: of the export, a lean run or one for ONNX Runtime.
        trained: the run it was made from.
        said: what a person says.
        name: of the model, where the repository is not known.

    Raises:
        RunError: for an evaluation of the run that cannot be read.
    """
    if (folder / "config.yaml").is_file():
        remove_places(folder)
    measured, n_others = evaluations_of(trained)
    title = said.repository.partition("/")[2] if said.repository else _one_line(name) or "model"
    figures = _figures(folder, trained)
    text = _front_matter(folder, said, measured, title) + _body(folder, trained, said, measured, n_others, title)
    write_text(folder / CARD, f"{text}<!-- img2seq sha256 {hashlib.sha256(text.encode()).hexdigest()} -->\n")
    to_disk(folder)
    look = [f"  {CARD}: {missing}" for missing in _missing(said, measured, n_others)]
    if CAPTIONS in figures:
        look.append(f"  {CAPTIONS}: shows pictures of your validation data; may they be published?")
    return ["look at it before you publish it:", *look] if look else []


def files_of_card(folder: Path) -> set[Path]:
    """Return the files of a card that an export may replace: not a README.md that a person has edited."""
    own = {folder / name for name in (CURVE, CAPTIONS)}
    card = folder / CARD
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    if (found := _SIGNED.search(text)) and hashlib.sha256(text[: found.start()].encode()).hexdigest() == found[1]:
        own.add(card)
    return own


def _missing(said: Said, measured: Sequence[Measured], n_others: int) -> list[str]:
    """Return what the card does not say because nobody said or measured it."""
    flags = {"license": said.license, "language": said.languages, "dataset": said.datasets}
    missing = [f"--{name}" for name, value in flags.items() if not value]
    unsaid = [f"to be filled, or said with {', '.join(missing)}"] if missing else []
    of_others = ", the evaluation of this run being of another checkpoint" if n_others else ""
    return [*unsaid, *([] if measured else [f"has no scores{of_others}: img2seq evaluate RUN, then export again"])]


# --- front matter --------------------------------------------------------------------------------------------


def _front_matter(folder: Path, said: Said, measured: Sequence[Measured], title: str) -> str:
    data: dict[str, Any] = {
        "library_name": "img2seq",
        "pipeline_tag": "image-to-text",
        "tags": ["image-captioning", *(["onnx", "transformers.js"] if (folder / "onnx").is_dir() else [])],
    }
    if said.languages:
        data["language"] = list(said.languages)
    data |= {"license": said.license} if said.license else {"license": "other", "license_name": "to-be-filled"}
    if said.datasets:
        data["datasets"] = list(said.datasets)
    if metrics := list(dict.fromkeys(HUB_METRICS[score.key][0] for one in measured for score in one.scores)):
        data["metrics"] = metrics
        data["model-index"] = [{"name": title, "results": [_result(one, said) for one in measured]}]
    return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10**6)}---\n"


def _result(one: Measured, said: Said) -> dict[str, Any]:
    dataset: dict[str, Any] = {"type": "other", "name": "captions it was not trained with"}
    if one.split is not None:
        dataset |= {"name": ", ".join(said.datasets) or "the data it was trained on", "split": one.split}
        if len(said.datasets) == 1 and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", said.datasets[0]):
            dataset["type"] = said.datasets[0]
    metrics = []
    for score in one.scores:
        kind, arguments = HUB_METRICS[score.key]
        metric: dict[str, Any] = {"type": kind, "value": round(score.value, 4), "name": score.title}
        metrics.append(metric | ({"args": arguments} if arguments else {}))
    return {"task": {"type": "image-to-text", "name": "Image captioning"}, "dataset": dataset, "metrics": metrics}


# --- text ----------------------------------------------------------------------------------------------------


def _body(folder: Path, trained: TrainedRun, said: Said, measured: Sequence[Measured], n_others: int, title: str) -> str:  # fmt: skip
    environment = jinja2.Environment(
        finalize=lambda value: markdown(value) if isinstance(value, str) else value,
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    environment.globals["counted"] = counted
    environment.filters["raw"] = Raw
    (entry,) = trained.config.inputs
    owner_name = said.repository or f"OWNER/{re.sub(r'[^A-Za-z0-9_]+', '-', title).strip('-_') or 'NAME'}"
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        said=said,
        repository=Raw(owner_name),
        is_onnx=(folder / "onnx").is_dir(),
        parity=read_json(folder / "parity.json") if (folder / "parity.json").is_file() else None,
        figures={name for name in (CURVE, CAPTIONS) if (folder / name).is_file()},
        measured=[(one, Raw(one.decoding)) for one in measured],
        n_others=n_others,
        input=entry,
        is_pretrained=entry.model.pretrained_model or entry.model.pretrained_weights not in (None, "random"),
        decoder=trained.config.output.model,
        text=trained.config.output.output_type_info,
        facts=trained.facts,
        n_words=len(trained.tokenizer) - len(SPECIAL_TOKENS),
        unit=_unit(trained),
        n_parameters=sum(parameter.numel() for parameter in trained.model.parameters()),
        step=trained.checkpoint.step,
        loss=trained.checkpoint.valid_loss,
        data=_data_facts(trained),
        resized=_resized(entry),
    )


def _unit(trained: TrainedRun) -> str:
    info = trained.config.output.output_type_info
    return "piece of a word" if info.tokenizer == "bpe" else "character" if info.split_on == "" else "word"


def _resized(entry: ImageInput) -> str:
    height, width = entry.input_type_info.height_width
    how = {"resize": "squeezed to", "centercrop": "scaled, and its middle cut to", "randomcrop": "scaled, and its middle cut to"}  # fmt: skip
    return f"{how[entry.input_type_info.resize_approach]} {width} x {height} pixels"


def _data_facts(trained: TrainedRun) -> list[str]:
    """Return what the run knows of its training data, a line each. An export, which has no split, knows less."""
    run, facts = trained.run, []
    options = load_config(run.config).globals.model
    if options.pretrained_checkpoint or options.pretrained_run:
        facts.append("began with the weights of another run, which was trained on data of its own")
    if run.split.is_file():
        split = read_json(run.split)
        words = {"train": "for training", "valid": "for validation", "test": "for testing"}
        counts = [f"{len(split[side]):,} {what}" for side, what in words.items() if split.get(side)]
        facts.append(f"images: {', '.join(counts)}")
    said = re.search(r"([\d,]+) training images with ([\d,]+) captions", _text_of(run.log))
    if said:
        facts.append(f"captions of the training images: {said[2]}")
    seen = trained.checkpoint.state().get("position", {}).get("captions")
    if isinstance(seen, int):
        facts.append(f"captions seen in training, each as often as it came: {seen:,}")
    return facts


def _text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def markdown(text: str) -> Raw:
    """Return text as Markdown that shows just this text: on one line, without links, tags or marks."""
    if isinstance(text, Raw):
        return text
    escaped = re.sub(r"([\\`*_\[\]<>&|~$@])", r"\\\1", _one_line(text))
    return Raw(re.sub(r"(?i)(www)\.|:(?=//)", lambda found: f"{found[1]}\\." if found[1] else "\\:", escaped))


def _one_line(text: str) -> str:
    """Return text without control characters and those that turn the direction of what follows."""
    kept = (char for char in " ".join(text.split()) if char.isprintable() or char in "\u200c\u200d")
    return "".join(kept).strip()


# --- figures -------------------------------------------------------------------------------------------------


def _figures(folder: Path, trained: TrainedRun) -> set[str]:
    """Copy the figures that the run has drawn already, small; return their names."""
    samples = trained.run.samples(trained.config.output.name)
    grids = {int(path.parent.name): path for path in samples.glob("*/grid.jpg") if path.parent.name.isdecimal()}
    until_now = [step for step in grids if step <= trained.checkpoint.step]
    sources = {CURVE: trained.run.figures / "training_curve_LOSS.png"}
    if until_now:
        sources[CAPTIONS] = grids[max(until_now)]
    return {name for name, path in sources.items() if _copy_small(path, folder / name)}


def _copy_small(source: Path, target: Path) -> bool:
    """Draw a picture anew, without whatever its file says of where it was made; return whether there is one."""
    try:
        with Image.open(source) as picture:
            drawn = picture.convert("RGBA")
    except OSError:  # not there, or not whole: the card does without
        return False
    small = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")
    small.thumbnail((SIDE, SIDE))
    target.parent.mkdir(exist_ok=True)
    small.save(target, quality=85, optimize=True)
    to_disk(target)
    return True
