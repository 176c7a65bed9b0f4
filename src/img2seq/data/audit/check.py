"""Look at a data set before a model does: what training would refuse, what would make its scores worthless, what it holds.

Every image is decoded in full through the one door, a few at a time, and only its figures are kept: memory grows with the
number of images, not with their size. What is an error here is one in training, too: broken and missing images, rows that
cannot be used, the same picture in training and validation; with `on_bad_data: skip` what training leaves out is listed as such.
What may be meant so is a warning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from img2seq.config.globals import BasicExperiment
from img2seq.config.load import load_config
from img2seq.config.outputs import ReadOptions, SequenceTypeInfo
from img2seq.data.audit.findings import Audit, counts, spread
from img2seq.data.audit.images import check_images
from img2seq.data.image import ImageSpec
from img2seq.data.picture import Picture
from img2seq.data.records import image_id_of
from img2seq.data.sources.content import GUESSED, is_pattern
from img2seq.data.sources.read import CaptionsFound, images_at, read_captions, read_source
from img2seq.data.split import joint_contents, leaks, random_split, read_ids, split_source, without_test
from img2seq.data.tokenizer import UNK, Tokenizer
from img2seq.data.vocabulary import build_tokenizer, longest_trained
from img2seq.data.words import WORDS
from img2seq.errors import DataError
from img2seq.progress import Announcer

FEWEST_WORDS = 2
REPEATED_SHARE, REPEATED_LEAST = 0.01, 5  # a caption on so many of the images says nothing of them
LOWEST_COVERAGE = 0.95  # of validation tokens


@dataclass
class Subject:
    """What is looked at.

    Attributes:
        tables: sources of captions; all together.
        folders: where images are, by input name; all of an input together.
        specs: how images become pixels, by input name.
        info: how captions become tokens.
        options: what is said of the captions' format.
        basic: where an experiment is looked at, how it splits.
        held_out: names of validation images, where they are given.
        trained_on: names of training images, where they are given; else the rest.
    """

    tables: list[str] = field(default_factory=list)
    folders: dict[str, list[str]] = field(default_factory=dict)
    specs: dict[str, ImageSpec] = field(default_factory=dict)
    info: SequenceTypeInfo = field(default_factory=SequenceTypeInfo)
    options: ReadOptions = GUESSED
    basic: BasicExperiment | None = None
    held_out: list[str] | None = None
    trained_on: list[str] | None = None


def subject_of(
    paths: Sequence[str], *, train_ids: str | None, valid_ids: str | None, min_freq: int | None, options: ReadOptions = GUESSED
) -> Subject:  # fmt: skip
    """Return what paths lead to: an experiment file, or captions of any format and folders of images.

    Raises:
        DataError: for a path that is none of these.
        ConfigError: for an experiment that cannot be read.
    """
    subject = Subject()
    if any(Path(path).suffix in (".yaml", ".yml") for path in paths):
        if len(paths) > 1:
            raise DataError(
                f"data check: expected one experiment alone, or tables and folders, found {' '.join(paths)}"
            )
        experiment = load_config(paths[0])
        basic, output = experiment.globals.basic_experiment, experiment.output
        source = output.output_info.output_source
        subject = Subject([source], info=output.output_type_info, options=output.output_info, basic=basic)
        for entry in experiment.inputs:
            subject.folders[entry.name] = [entry.input_info.input_source]
            subject.specs[entry.name] = ImageSpec.of(entry.input_type_info)
        if basic.manual_valid_ids_file is not None:
            subject.held_out = read_ids(basic.manual_valid_ids_file)
    if subject.basic is None:
        subject.options = options
        _sort_out(subject, paths)
    if min_freq is not None:
        subject.info = subject.info.model_copy(update={"min_freq": min_freq})
    subject.held_out = read_ids(valid_ids) if valid_ids is not None else subject.held_out
    subject.trained_on = read_ids(train_ids) if train_ids is not None else None
    return subject


def _sort_out(subject: Subject, paths: Sequence[str]) -> None:
    """Tell captions from folders of images. What holds both is both, unless captions are given beside it."""
    for path in paths:
        if not (Path(path).exists() or is_pattern(path)):
            raise DataError(f"{path}: expected an experiment (.yaml), captions or a folder of images, found nothing")
    folders = [path for path in paths if Path(path).is_dir()]
    subject.tables = [path for path in paths if path not in folders]
    if not subject.tables:
        subject.tables = [path for path in folders if _is_source(path, subject.options)]
    subject.folders = {"images": folders} if folders else {}
    subject.specs = {"images": ImageSpec(64, 64)}


def _is_source(folder: str, options: ReadOptions) -> bool:
    try:
        read_source(folder, options)
    except DataError:
        return False
    return True


def check(subject: Subject, announce: Announcer, *, workers: int = 2) -> Audit:
    """Look at everything and return what was found.

    Raises:
        DataError: where a table or a folder cannot be read at all.
    """
    skips = subject.basic is not None and subject.basic.on_bad_data == "skip"
    audit = Audit(max_broken_share=subject.basic.max_broken_share if subject.basic is not None and skips else None)
    known = {path: read_captions(path, subject.options) for path in subject.tables}
    captions, paths = _check_tables(known, audit)
    if subject.basic is None and not subject.folders:  # captions alone may come with their pictures
        with_pictures = [path for path, found in known.items() if any(map(_is_there, found.pictures.values()))]
        subject.folders = {"images": with_pictures} if with_pictures else {}
    contents: dict[str, dict[str, str]] = {}
    for name, folders in subject.folders.items():
        places = [images_at(folder, known) for folder in folders]
        contents[name] = check_images(
            name, places, subject.specs[name], captions, paths, audit, announce=announce, workers=workers
        )
    if captions:
        usable = [i for i in captions if all(i in of_input for of_input in contents.values())]
        joint = joint_contents(usable, contents.values())
        given = {i: side for found in known.values() for i, side in found.splits.items()}
        train, valid = _check_split(subject, usable, joint, given, audit)
        _check_captions(captions, audit)
        _check_tokens(subject, captions, train or usable, valid, audit)
    return audit


# --- captions --------------------------------------------------------------------------------------------


def _is_there(picture: Picture) -> bool:
    return not isinstance(picture, Path) or picture.exists()


def _check_tables(known: Mapping[str, CaptionsFound], audit: Audit) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return captions, and the paths of pictures that they name, by image ID."""
    captions: dict[str, list[str]] = {}
    paths: dict[str, str] = {}
    for path, found in known.items():
        audit.add("error", "bad-row", f"row(s) of {path} cannot be used", found.problems)
        audit.notes += [found.summary, *found.notes]
        paths |= found.paths
        for image_id, texts in found.captions.items():
            captions.setdefault(image_id, []).extend(texts)
    if captions:
        audit.figures["captions"] = {
            "tables": list(known),
            "captions": sum(map(len, captions.values())),
            "images": len(captions),
            "captions_per_image": spread([len(texts) for texts in captions.values()]),
        }
    return captions, paths


def _check_captions(captions: Mapping[str, Sequence[str]], audit: Audit) -> None:
    short, twice, images_of = [], [], Counter[str]()
    for image_id, texts in captions.items():
        counts = Counter(text.casefold() for text in texts)
        images_of.update(counts.keys())
        twice += [f"{image_id}: {text!r}" for text, n in counts.items() if n > 1]
        short += [f"{image_id}: {text!r}" for text in texts if _n_words(text) < FEWEST_WORDS]
    most = max(REPEATED_LEAST, REPEATED_SHARE * len(captions))
    everywhere = [f"{text!r} on {n:,} images" for text, n in images_of.most_common() if n >= most]
    audit.add("warning", "short-caption", f"caption(s) have fewer than {FEWEST_WORDS} words", short)
    audit.add("warning", "repeated-caption", "caption(s) stand twice on one image", twice)
    audit.add(
        "warning", "common-caption", f"caption(s) stand on {REPEATED_SHARE:.0%} of the images or more", everywhere
    )


def _n_words(text: str) -> int:
    return sum(any(char.isalnum() for char in word) for word in text.split())


def _check_tokens(
    subject: Subject, captions: Mapping[str, Sequence[str]], train: Sequence[str], valid: Sequence[str], audit: Audit
) -> None:
    """Build the vocabulary as training does, and measure captions with it."""
    info = subject.info
    of_training = [text for i in train for text in captions[i]]
    try:
        tokenizer = build_tokenizer(info, of_training)
    except DataError as error:
        audit.add("error", "no-vocabulary", "vocabulary cannot be made", [str(error)])
        return
    encoded = [tokenizer.encode(text) for texts in captions.values() for text in texts]
    lengths = [len(tokens) for tokens in encoded]
    of_validation = [text for i in valid for text in captions[i]]
    coverage = {"all": _coverage(encoded), "validation": _coverage([tokenizer.encode(text) for text in of_validation])}
    max_length = longest_trained(info, [len(tokenizer.encode(text)) + 1 for text in of_training])
    audit.figures["vocabulary"] = {
        "tokens": len(tokenizer),
        "min_freq": info.min_freq,
        "known_share": coverage,
        "unknown": counts(_unknown_words(tokenizer, of_validation or of_training), most=20),
    }
    audit.figures["lengths"] = {
        **spread(lengths),
        "max_length": max_length,
        "cut_share": sum(n + 1 > max_length for n in lengths) / len(lengths),
        "histogram": {str(n): count for n, count in sorted(Counter(lengths).items())},
    }
    measured = coverage["all"] if coverage["validation"] is None else coverage["validation"]
    if measured is not None and measured < LOWEST_COVERAGE:
        side = "all" if coverage["validation"] is None else "the validation"
        line = (
            f"{measured:.1%} of {side} tokens are in the vocabulary of {len(tokenizer):,} (min_freq: {info.min_freq})"
        )
        audit.add("warning", "low-coverage", f"vocabulary knows fewer than {LOWEST_COVERAGE:.0%} of the tokens", [line])


def _coverage(encoded: Sequence[Sequence[int]]) -> float | None:
    n_tokens = sum(map(len, encoded))
    return 1 - sum(tokens.count(UNK) for tokens in encoded) / n_tokens if n_tokens else None


def _unknown_words(tokenizer: Tokenizer, captions: Iterable[str]) -> Iterator[str]:
    for text in captions:
        if UNK in tokenizer.encode(text):
            plain = tokenizer.normalise(text)
            words = tokenizer.cut(plain) if tokenizer.split_on == WORDS else plain.split()
            yield from (word for word in words if UNK in tokenizer.encode(word))


# --- the split -------------------------------------------------------------------------------------------


def _check_split(
    subject: Subject, usable: Sequence[str], contents: Mapping[str, str], given: Mapping[str, str], audit: Audit
) -> tuple[list[str], list[str]]:
    """Return the training and the validation ids, nothing where there is no split."""
    test: list[str] = []
    if subject.held_out is None and subject.trained_on is None:
        try:
            split = _own_split(subject.basic, usable, contents, given)
        except DataError as error:
            audit.add("error", "no-split", "split cannot be made", [str(error)])
            split = None
        if split is None:
            return [], []
        train, valid, test = split
    else:
        if subject.basic is not None and subject.trained_on is None:
            usable, test = without_test(usable, subject.basic, subject.held_out, given)
        known = set(usable)
        named = [{image_id_of(name) for name in names or ()} for names in (subject.trained_on, subject.held_out)]
        train = sorted((named[0] if subject.trained_on is not None else known - named[1]) & known)
        valid = sorted((named[1] if subject.held_out is not None else known - named[0]) & known)
        audit.add(
            "error",
            "unknown-split-id",
            "ID(s) of the split have no caption, or no image that can be used",
            sorted((named[0] | named[1]) - known),
        )
        audit.add("error", "id-leak", "ID(s) stand in training and in validation", sorted(named[0] & named[1]))
    leaking = {i: other for i, other in leaks(train, valid, contents) if i != other}
    pairs = [f"{i} (validation) is {other} (training)" for i, other in leaking.items()]
    audit.add("error", "content-leak", "validation image(s) stand in training under another ID", pairs)
    of_test = [
        f"{i} (test) is {other} (training or validation)" for i, other in leaks([*train, *valid], test, contents)
    ]
    audit.add("warning", "test-leak", "test image(s) stand in training or validation under another ID", of_test)
    if audit.max_broken_share is not None:  # as training leaves them out
        valid = [i for i in valid if i not in leaking]
    sides = (("training", train), ("validation", valid))
    audit.add("error", "empty-side", "side(s) of the split are empty", [name for name, ids in sides if not ids])
    audit.figures["split"] = {
        "train": len(train),
        "valid": len(valid),
        "test": len(test),
        "of_equal_content": len(pairs),
    }
    return train, valid


def _own_split(
    basic: BasicExperiment | None, usable: Sequence[str], contents: Mapping[str, str], given: Mapping[str, str]
) -> tuple[list[str], list[str], list[str]] | None:
    """Return (train, valid, test) ids as an experiment or the data itself splits them, None where neither does.

    Raises:
        DataError: where a side would be empty.
    """
    if basic is not None:
        ids, test = without_test(usable, basic, None, given)
        if split_source(basic, given) == "random" or not any(given[i] == "valid" for i in ids):
            return *random_split(ids, basic.valid_size, basic.seed, contents), test
    elif not {"train", "valid"} <= set(given.values()):
        return None
    sides = [[i for i in usable if given.get(i) == side] for side in ("train", "valid", "test")]
    return sides[0], sides[1], sides[2]
