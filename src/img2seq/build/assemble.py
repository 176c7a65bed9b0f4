"""From a configuration to objects, for every verb: what was trained is what is evaluated, captioned with and served.

`prepare` reads data and builds a new model; `load` rebuilds the model of a finished run from its folder alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from img2seq.build.features import cache_features
from img2seq.config.inputs import ImageInput
from img2seq.config.schema import Experiment
from img2seq.data.caption_set import CaptionSet, ImageRows
from img2seq.data.image import ImageSpec, from_any
from img2seq.data.pixels import PixelTable, cache_pixels
from img2seq.data.records import Problems, check_broken_share, match_images, settle
from img2seq.data.row_store import default_cache_folder
from img2seq.data.seeds import generator, seed_of
from img2seq.data.sources.read import read_captions
from img2seq.data.split import configured_split, joint_contents, read_ids
from img2seq.data.tokenizer import Tokenizer, build_tokenizer, longest_trained
from img2seq.errors import ConfigError, ModelError, RunError
from img2seq.model.caption_model import CaptionModel
from img2seq.model.compiler import without_compiler
from img2seq.model.decoder import Decoder
from img2seq.model.encoder import ImageEncoder, check_name
from img2seq.model.weights import check_shapes, read_shapes, read_tensors, shapes_of
from img2seq.progress import Announcer
from img2seq.run.checkpoint import Checkpoint, best, verify
from img2seq.run.folder import RunFolder, check_signed, open_run, read_config, read_json, read_tokenizer

MAX_POSITIONS = 1_000_000  # of a decoder; a run folder may come from anywhere


@dataclass(frozen=True)
class Facts:
    """What the data decided and a model cannot be rebuilt without.

    Attributes:
        max_length: most tokens of a caption, end token included.
        n_positions: places the decoder knows.
        vocabulary: tokens.
        normalization: of each input: mean and std of each channel, pixel values in 0..1.
        tokenizer_digest: of the tokenizer the model was trained with.
        preprocessing: of each input: what decides the pixels of a given file.
    """

    max_length: int
    n_positions: int
    vocabulary: int
    normalization: dict[str, dict[str, list[float]]]
    tokenizer_digest: str
    preprocessing: dict[str, str]


@dataclass(frozen=True)
class Prepared:
    """All that training needs. `data` holds SHA-256 digests of the captions and of the image files."""

    model: CaptionModel
    tokenizer: Tokenizer
    facts: Facts
    train: CaptionSet
    valid: CaptionSet
    files: dict[str, dict[str, Path]]
    report: str
    data: dict[str, str]


def choose_device(name: str) -> torch.device:
    """Return the device a configuration names. Raises ConfigError if this machine does not have it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present[device.type] or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise ConfigError(f"basic_experiment.device: {name} is not present on this machine; cpu and auto always work")
    return device


# --- a new run -------------------------------------------------------------------------------------------


def prepare(config: Experiment, announce: Announcer, previous: Checkpoint | None = None) -> Prepared:
    """Read the data, list what is wrong with it, and build everything that training needs.

    The weights of a new run are drawn, or pretrained ones; those of a resumed one are its checkpoint's, from here on for
    features of frozen encoders are computed with them.

    Raises:
        DataError: listing all captions and images that cannot be used, unless `on_bad_data` is skip.
        ModelError: if the model cannot be built.
        ConfigError: if the device is not present.
    """
    basic = config.globals.basic_experiment
    device = choose_device(basic.device)
    for entry in config.inputs:  # a misspelled name should not be found after an hour of reading images
        check_name(entry.model.model_type)
        for manual in config.output.sampling_config.manual_inputs:  # nor this at the first evaluation
            from_any(manual[entry.name], ImageSpec.of(entry.input_type_info))
    held_out = read_ids(basic.manual_valid_ids_file) if basic.manual_valid_ids_file is not None else None
    captions, tables, files, report = _read_data(config, announce)
    contents = joint_contents(captions, [table.content_of for table in tables.values()])
    leaks = Problems()
    train_ids, valid_ids = configured_split(captions, basic, held_out, contents, leaks)
    if report := "\n".join(filter(None, (report, settle(leaks, basic.on_bad_data)))):
        announce.say(report)
    info = config.output.output_type_info
    train_captions = [text for image_id in train_ids for text in captions[image_id]]
    tokenizer = build_tokenizer(info, train_captions)
    lengths = [len(tokenizer.encode(text)) + 1 for text in train_captions]
    max_length = longest_trained(info, lengths)
    facts = Facts(
        max_length=max_length,
        n_positions=max(max(lengths), max_length, config.output.sampling_config.generated_sequence_length) + 1,
        vocabulary=len(tokenizer),
        normalization={
            entry.name: _normalization(entry, tables[entry.name], train_ids, basic.seed) for entry in config.inputs
        },
        tokenizer_digest=tokenizer.digest,
        preprocessing=preprocessing(config),
    )
    announce.say(
        f"{len(train_ids):,} training images with {len(train_captions):,} captions, {len(valid_ids):,} validation images; "
        f"{len(tokenizer):,} tokens, captions of at most {max_length}"
    )
    torch.manual_seed(seed_of("weights", basic.seed))
    model = build_model(config, facts, new=previous is None).to(device)
    options = config.globals.model
    if source := options.pretrained_checkpoint if previous is None else str(previous.weights):
        strict = options.strict_pretrained_loading or previous is not None
        load_weights_from(model, source, strict=strict, say=announce.say)
    image_rows = {entry.name: _RowsOfAll(config, entry, tables[entry.name], model, announce) for entry in config.inputs}
    sets = [
        CaptionSet(
            {image_id: captions[image_id] for image_id in ids},
            tokenizer,
            max_length=max_length,
            images={name: rows.of(ids) for name, rows in image_rows.items()},
            seed=basic.seed,
            uniform=info.sampling_strategy_if_longer == "uniform",
        )
        for ids in (train_ids, valid_ids)
    ]
    used = sorted({*train_ids, *valid_ids})
    data = {
        "captions_digest": _digest([(i, captions[i]) for i in used]),
        "images_digest": _digest([(name, i, tables[name].content_of[i]) for name in tables for i in used]),
    }
    return Prepared(model, tokenizer, facts, sets[0], sets[1], files, report, data)


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()


def _read_data(
    config: Experiment, announce: Announcer
) -> tuple[dict[str, list[str]], dict[str, PixelTable], dict[str, dict[str, Path]], str]:
    """Return captions by image, the pixels and files of each input, and what was left out."""
    basic = config.globals.basic_experiment
    problems = Problems()
    source = config.output.output_info.output_source
    table = read_captions(source)
    problems.add(f"row(s) of {source} cannot be used", table.problems)
    captions = table.captions
    tables: dict[str, PixelTable] = {}
    files: dict[str, dict[str, Path]] = {}
    for entry in config.inputs:
        name, folder = entry.name, entry.input_info.input_source
        files[name], without_caption = match_images(captions, folder, name, problems)
        if without_caption:
            announce.say(f"{without_caption:,} image(s) in {folder} have no caption and are not used")
        spec = ImageSpec.of(entry.input_type_info)
        with announce.bar(f"reading {name}", len(files[name])) as advance:
            tables[name] = cache_pixels(
                files[name], spec, cache_folder(config), workers=basic.dataloader_workers, progress=advance
            )
        problems.add(f"image(s) in {folder} cannot be used", list(tables[name].problems.values()))
        check_broken_share(tables[name].problems, len(files[name]), basic)
    report = settle(problems, basic.on_bad_data)
    usable = {
        i: texts for i, texts in captions.items() if all(i in tables[entry.name].row_of for entry in config.inputs)
    }
    return usable, tables, files, report


def cache_folder(config: Experiment) -> Path:
    """Return where pixels and features are kept."""
    chosen = config.globals.basic_experiment.cache_folder
    return Path(chosen) if chosen else default_cache_folder()


def _normalization(entry: ImageInput, table: PixelTable, train_ids: Sequence[str], seed: int) -> dict[str, list[float]]:
    """Return mean and std of each channel: those configured, or those of the training images' pixels."""
    info = entry.input_type_info
    if info.mean_normalization_values is not None and info.stds_normalization_values is not None:
        return {"mean": info.mean_normalization_values, "std": info.stds_normalization_values}
    if info.adaptive_normalization_max_samples is not None:
        chosen = generator("normalization", seed).permutation(len(train_ids))[: info.adaptive_normalization_max_samples]
        train_ids = [train_ids[i] for i in chosen]
    counts, values = table.value_counts(train_ids), np.arange(256)
    n = counts.sum(1)
    mean = counts @ values / n
    variance = counts @ values**2 / n - mean**2
    return {"mean": (mean / 255).tolist(), "std": (np.sqrt(np.maximum(variance, 1.0)) / 255).tolist()}


class _RowsOfAll:
    """Pixels or features of all images of an input, of which each side of the split takes its own."""

    def __init__(
        self, config: Experiment, entry: ImageInput, table: PixelTable, model: CaptionModel, announce: Announcer
    ):
        self.entry, self.spec = entry, ImageSpec.of(entry.input_type_info)
        self.are_features = entry.model.cache_features
        if self.are_features:
            encoder = model.encoders[entry.name]
            assert isinstance(encoder, ImageEncoder)
            self.rows, self.row_of = cache_features(
                encoder, table, cache_folder(config), mirrored=entry.input_type_info.horizontal_flip, announce=announce
            )
        else:
            self.rows, self.row_of = table.store.map(), table.row_of
        if config.globals.basic_experiment.memory_dataset:
            ids = list(self.row_of)
            self.rows = self.rows[np.array([self.row_of[i] for i in ids])]
            self.row_of = {image_id: place for place, image_id in enumerate(ids)}

    def of(self, ids: Sequence[str]) -> ImageRows:
        info = self.entry.input_type_info
        row_of = np.array([self.row_of[image_id] for image_id in ids], dtype=np.int64)
        return ImageRows(self.rows, row_of, self.spec, info.auto_augment, info.horizontal_flip, self.are_features)


# --- the model -------------------------------------------------------------------------------------------


def build_model(config: Experiment, facts: Facts, *, new: bool) -> CaptionModel:
    """Return the model a configuration describes; a new one starts from pretrained encoders where that is asked for."""
    output = config.output.model
    size = output.model_init_config
    encoders = {}
    for entry in config.inputs:
        height, width = entry.input_type_info.height_width
        options = entry.model
        encoders[entry.name] = ImageEncoder(
            options.model_type,
            height=height,
            width=width,
            **facts.normalization[entry.name],
            options=options.model_init_config,
            pretrained=new and options.pretrained_model,
            weights=options.pretrained_weights if new else None,
            frozen=options.freeze_pretrained_model,
        )
    decoder = Decoder(
        vocabulary=facts.vocabulary,
        width=output.embedding_dim,
        n_layers=size.num_layers,
        n_heads=size.num_heads,
        feedforward=output.feedforward_dim,
        dropout=size.dropout,
        position_dropout=output.position_dropout,
        position=output.position,
        n_positions=facts.n_positions,
        has_memory=bool(encoders),
    )
    return CaptionModel(encoders, decoder, context_dropout=size.dropout)


def load_weights_from(model: CaptionModel, source: str, *, strict: bool, say: Callable[[str], None]) -> None:
    """Load the weights of another run, checkpoint or file into the model."""
    path = Path(source)
    if (path / "config.yaml").is_file():
        path = best(RunFolder(path).checkpoints).path
    if path.is_dir():
        verify(Checkpoint(path))
        path = path / "weights.safetensors"
    if not path.is_file():
        raise ModelError(
            f"pretrained_checkpoint: {source}: expected a run, a checkpoint folder or a .safetensors file, found nothing"
        )
    expected, found = shapes_of(model), read_shapes(path)
    if strict:
        check_shapes(expected, found, path)
        model.load_state_dict(read_tensors(path))
        return
    fitting = [name for name in found if found[name] == expected.get(name)]
    if not fitting:
        raise ModelError(f"{path}: none of its {len(found)} tensors fits the model")
    model.load_state_dict(read_tensors(path, fitting), strict=False)
    left = [name for name in expected if name not in fitting]
    say(
        f"{path}: {len(fitting)} tensors taken, {len(left)} of the model keep their initial values: {', '.join(left[:5])} ..."
    )


# --- a finished run --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoadedRun:
    """A trained model with all that it needs to caption images."""

    run: RunFolder
    checkpoint: Checkpoint
    config: Experiment
    facts: Facts
    tokenizer: Tokenizer
    model: CaptionModel
    specs: Mapping[str, ImageSpec]


def read_facts(run: RunFolder) -> Facts:
    """Return what a run's data decided. Raises RunError if the file is broken."""
    data = read_json(run.facts)
    try:
        found = data["facts"]
        if "preprocessing" not in found:  # not written by the first versions
            found["preprocessing"] = preprocessing(read_config(run))
        facts = TypeAdapter(Facts).validate_json(json.dumps(found), strict=True)
    except (TypeError, KeyError, AttributeError, ValidationError) as error:
        raise RunError(f"{run.facts}: expected the facts of a run: {error}") from error
    if not 1 <= facts.n_positions <= MAX_POSITIONS:
        raise RunError(f"{run.facts}: n_positions: expected 1 to {MAX_POSITIONS:,}, found {facts.n_positions:,}")
    if set(facts.normalization) != set(facts.preprocessing) or any(
        set(values) != {"mean", "std"} for values in facts.normalization.values()
    ):
        raise RunError(
            f"{run.facts}: normalization: expected mean and std of {list(facts.preprocessing)}, found {facts.normalization}"
        )
    return facts


def preprocessing(config: Experiment) -> dict[str, str]:
    """Return what decides the pixels of a given file, by input."""
    return {entry.name: ImageSpec.of(entry.input_type_info).key for entry in config.inputs}


def load(path: str | Path, *, device: str = "auto", step: int | None = None) -> LoadedRun:
    """Load a run's best checkpoint, or that of a step, in evaluation mode.

    Raises:
        RunError: if the run is incomplete or damaged, or its tokenizer is not the one it was trained with.
    """
    run = open_run(path)
    check_signed(run)
    config, facts, tokenizer = read_config(run), read_facts(run), read_tokenizer(run)
    if tokenizer.digest != facts.tokenizer_digest:
        raise RunError(f"{run.tokenizer}: not the tokenizer this run was trained with; restore the file")
    if (now := preprocessing(config)) != facts.preprocessing:
        raise RunError(
            f"{run.config}: images would become other pixels than in training: {facts.preprocessing}, now {now}"
        )
    if step is None:
        checkpoint = best(run.checkpoints)
    else:
        checkpoint = Checkpoint(run.checkpoints / f"step-{step:08d}")
        if not checkpoint.path.is_dir():
            raise RunError(f"{checkpoint.path}: there is no such checkpoint")
        verify(checkpoint)
    # First a model without memory: only a file that fits decides how much is allocated.
    with without_compiler(), torch.device("meta"):
        check_shapes(
            shapes_of(build_model(config, facts, new=False)), read_shapes(checkpoint.weights), checkpoint.weights
        )
    model = build_model(config, facts, new=False)
    model.load_state_dict(read_tensors(checkpoint.weights))
    model.to(choose_device(device)).eval()
    specs = {entry.name: ImageSpec.of(entry.input_type_info) for entry in config.inputs}
    return LoadedRun(run, checkpoint, config, facts, tokenizer, model, specs)
