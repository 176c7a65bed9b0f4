"""From a configuration to what training needs: the data read and split, and the model with its first weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from img2seq.build.check import check_before_reading, check_beginnings
from img2seq.build.device import choose_device
from img2seq.build.facts import Facts, preprocessing
from img2seq.build.images import InputImages, cache_folder
from img2seq.build.language_model_start import PretrainedLanguageModel, pretrained_language_model
from img2seq.build.model import build_model, without_pretrained
from img2seq.build.other_captioner import other_captioner
from img2seq.build.start_weights import load_weights_from, pretrained
from img2seq.config.globals import BasicExperiment
from img2seq.config.inputs import ImageInput
from img2seq.config.schema import Experiment
from img2seq.data.caption_set import CaptionSet
from img2seq.data.image import ImageSpec
from img2seq.data.picture import Picture
from img2seq.data.pixels import PixelTable, cache_pixels
from img2seq.data.records import Problems, check_broken_share, settle
from img2seq.data.seeds import generator, seed_of
from img2seq.data.sources.read import CaptionsFound, match_images, read_captions
from img2seq.data.split import configured_split, joint_contents, read_ids, without_test
from img2seq.data.tokenizer import Tokenizer
from img2seq.data.vocabulary import build_tokenizer, longest_trained
from img2seq.model.caption_model import CaptionModel
from img2seq.model.check_encoder import unseen_border
from img2seq.model.cpu.convolution import replace_convolutions
from img2seq.model.cpu.dropout import replace_dropout
from img2seq.progress import Announcer
from img2seq.run.checkpoint import Checkpoint


@dataclass(frozen=True)
class Prepared:
    """All that training needs. `data` holds SHA-256 digests of the captions and of the image files, `test` the ids that it never reads.

    `tables` are the pixels of each input, of which `with_inputs` makes other images. `began_with` is what is known of another captioner
    that the run began with: of a run that is resumed, only that there was one.
    """

    model: CaptionModel
    tokenizer: Tokenizer
    facts: Facts
    train: CaptionSet
    valid: CaptionSet
    test: list[str]
    tables: dict[str, PixelTable]
    files: dict[str, dict[str, Picture]]
    report: str
    data: dict[str, str]
    began_with: dict[str, Any] | None

    def with_inputs(self, inputs: Sequence[ImageInput], basic: BasicExperiment, announce: Announcer) -> Prepared:
        """Return the same captions with images as these inputs have them: cached features are those of the model as it is now."""
        images = _images(inputs, self.tables, self.model, basic, announce)
        train, valid = (
            side.with_images({name: of_input.of(side.image_ids) for name, of_input in images.items()})
            for side in (self.train, self.valid)
        )
        return replace(self, train=train, valid=valid)


def _images(
    inputs: Sequence[ImageInput],
    tables: Mapping[str, PixelTable],
    model: CaptionModel,
    basic: BasicExperiment,
    announce: Announcer,
) -> dict[str, InputImages]:
    return {entry.name: InputImages(entry, tables[entry.name], model, basic, announce) for entry in inputs}


def prepare(
    config: Experiment,
    announce: Announcer,
    previous: Checkpoint | None = None,
    inputs: Sequence[ImageInput] | None = None,
) -> Prepared:
    """Read the data, list what is wrong with it, and build everything that training needs.

    A new run starts from random or pretrained weights. A resumed run loads its checkpoint's weights here: cached features of
    frozen encoders depend on them. The images are those of `inputs`, where a phase has other ones than the configuration.

    Raises:
        DataError: listing all captions and images that cannot be used, unless `on_bad_data` is skip.
        ModelError: if the model cannot be built.
        ConfigError: if the device is not present.
    """
    basic = config.globals.basic_experiment
    device = choose_device(basic.device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if config.globals.accelerator.tf32 else "highest")
    language = pretrained_language_model(config, previous)
    check_before_reading(config, is_new=previous is None, language=language)
    other = other_captioner(config, previous)
    held_out = read_ids(basic.manual_valid_ids_file) if basic.manual_valid_ids_file is not None else None
    found = read_captions(config.output.output_info.output_source, config.output.output_info)
    announce.say(found.summary)
    for note in found.notes:
        announce.say(note)
    ids, test_ids = without_test(found.captions, basic, held_out, found.splits)
    known = None if other is None else other.tokenizer
    captions, tables, files, report = _read_data(config, found, ids, held_out, announce, known, language)
    contents = joint_contents(captions, [table.content_of for table in tables.values()])
    leaks = Problems()
    train_ids, valid_ids = configured_split(captions, basic, held_out, contents, leaks, found.splits)
    if report := "\n".join(filter(None, (report, settle(leaks, basic.on_bad_data)))):
        announce.say(report)
    info = config.output.output_type_info
    train_captions = [text for image_id in train_ids for text in captions[image_id]]
    of_language = None
    if language is None:
        tokenizer = build_tokenizer(info, train_captions, known)
    else:
        tokenizer, of_language = language.tokenizer_for(train_captions, config)
    check_beginnings(config, tokenizer)
    lengths = [len(tokenizer.encode(text)) + 1 for text in train_captions]
    max_length = longest_trained(info, lengths)
    n_positions = max(max(lengths), max_length, config.output.sampling_config.generated_sequence_length) + 1
    facts = Facts(
        max_length=max_length,
        n_positions=n_positions if other is None else max(n_positions, other.facts.n_positions),
        vocabulary=len(tokenizer),
        normalization=other.facts.normalization
        if other is not None
        else {entry.name: _normalization(entry, tables[entry.name], train_ids, basic.seed) for entry in config.inputs},
        tokenizer_digest=tokenizer.digest,
        preprocessing=preprocessing(config.inputs),
        language_model=of_language,
    )
    announce.say(
        f"{len(train_ids):,} training images with {len(train_captions):,} captions, {len(valid_ids):,} validation images; "
        f"{len(tokenizer):,} tokens, captions of at most {max_length}"
    )
    torch.manual_seed(seed_of("weights", basic.seed))
    create_of = pretrained if previous is None and other is None else without_pretrained
    built = build_model(
        config.inputs,
        config.output,
        facts,
        create_of=create_of,
        language_model=None if language is None else language.model,
    )
    model = speed_up(built).to(device)
    if previous is None:
        warn_of_borders(model, announce)
    options = config.globals.model
    if source := options.pretrained_checkpoint if previous is None else str(previous.weights):
        strict = options.strict_pretrained_loading or previous is not None
        load_weights_from(model, source, strict=strict, say=announce.say)
    began_with = None if other is None else other.give_weights(model, tokenizer, facts, announce.say)
    images = _images(config.inputs if inputs is None else inputs, tables, model, basic, announce)
    sets = [
        CaptionSet(
            {image_id: captions[image_id] for image_id in ids},
            tokenizer,
            max_length=max_length,
            images={name: of_input.of(ids) for name, of_input in images.items()},
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
    return Prepared(model, tokenizer, facts, sets[0], sets[1], test_ids, tables, files, report, data, began_with)


def warn_of_borders(model: CaptionModel, announce: Announcer) -> None:
    """Say which rows and columns of the images an encoder never looks at."""
    for name in model.encoders:
        encoder = model.encoder(name)
        rows, columns = unseen_border(encoder)
        if rows or columns:
            height, width = encoder.size
            announce.warn(
                f"inputs.{name}: this encoder never sees the last {rows} of {height} rows and {columns} of {width} columns: they do not "
                f"fill a patch; with size: [{height - rows}, {width - columns}] the whole picture is seen"
            )


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()


def _read_data(
    config: Experiment,
    found: CaptionsFound,
    ids: Sequence[str],
    held_out: Sequence[str] | None,
    announce: Announcer,
    known: Tokenizer | None,
    language: PretrainedLanguageModel | None,
) -> tuple[dict[str, list[str]], dict[str, PixelTable], dict[str, dict[str, Picture]], str]:
    """Return captions by image, the pixels and pictures of each input, and what was left out, of the images `ids`."""
    basic = config.globals.basic_experiment
    problems = Problems()
    source = config.output.output_info.output_source
    problems.add(f"row(s) of {source} cannot be used", found.problems)
    captions = {image_id: found.captions[image_id] for image_id in ids}
    if not problems:  # before images are read: whether both sides will have some, and the vocabulary a word
        configured_split(captions, basic, held_out, {}, Problems(), found.splits)
        if (info := config.output.output_type_info).tokenizer is None and language is None:
            build_tokenizer(info, [text for texts in captions.values() for text in texts], known)
    tables: dict[str, PixelTable] = {}
    files: dict[str, dict[str, Picture]] = {}
    for entry in config.inputs:
        name, where = entry.name, entry.input_info.input_source
        files[name], notes = match_images(found, ids, where, name, problems, source)
        for note in notes:
            announce.say(note)
        spec = ImageSpec.of(entry.input_type_info)
        with announce.bar(f"reading {name}", len(files[name])) as advance:
            tables[name] = cache_pixels(
                files[name], spec, cache_folder(basic), workers=basic.dataloader_workers, progress=advance
            )
        problems.add(f"image(s) in {where} cannot be used", list(tables[name].problems.values()))
        check_broken_share(tables[name].problems, len(files[name]), basic)
    report = settle(problems, basic.on_bad_data)
    usable = {
        i: texts for i, texts in captions.items() if all(i in tables[entry.name].row_of for entry in config.inputs)
    }
    return usable, tables, files, report


def speed_up(model: CaptionModel) -> CaptionModel:
    """Let a model train with our convolutions and our dropout; captioning has no need of them."""
    for name in model.encoders:
        replace_convolutions(model.encoder(name).backbone)
    for part in (model.projections, model.decoder):
        replace_dropout(part)
    return model


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
