"""Which images are held out for validation: no picture may stand on both sides, under whatever ID."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from img2seq.config.globals import BasicExperiment
from img2seq.data.records import Problems, image_id_of
from img2seq.data.seeds import seed_of
from img2seq.errors import ConfigError, DataError, did_you_mean, listed
from img2seq.files import regular


def split_source(basic: BasicExperiment, given: Mapping[str, str]) -> Literal["from_data", "random", "file"]:
    """Return where the split comes from: where that is not said, from a file that is named, else the data, else it is drawn.

    Args:
        basic: what is said.
        given: the side that the data gives an image, by ID; only where it does.

    Raises:
        ConfigError: for `file` without a file, and `random` with one.
        DataError: for `from_data` where the data has no split.
    """
    if (basic.splits == "file") != (basic.manual_valid_ids_file is not None) and basic.splits is not None:
        raise ConfigError(
            f"globals.basic_experiment.splits: {basic.splits} {'needs' if basic.splits == 'file' else 'has no use for'} manual_valid_ids_file"
        )
    has_split = {"train", "valid"} <= set(given.values()) or {"train", "test"} <= set(given.values())
    if basic.splits == "from_data" and not has_split:
        found = ", ".join(sorted(set(given.values()))) or "none"
        raise DataError(
            f"globals.basic_experiment.splits: from_data needs data with a split into train and val or test, found {found}"
        )
    return basic.splits or (
        "file" if basic.manual_valid_ids_file is not None else "from_data" if has_split else "random"
    )


def without_test(
    image_ids: Iterable[str], basic: BasicExperiment, held_out: Iterable[str] | None, given: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Return (ids to train and validate with, test ids): what the data holds back for the end is not even read.

    Args:
        image_ids: with captions.
        basic: where the split comes from.
        held_out: names of the validation images, where a file has them.
        given: the side that the data gives an image, by ID.
    """
    ids, source = list(image_ids), split_source(basic, given)
    if source == "random":
        test = [i for i in ids if given.get(i) == "test"] if basic.splits is None else []
        if test and len(test) == len(ids):
            raise DataError(
                "every image is in the test part of the data, and training never reads that; globals.basic_experiment.splits: random uses it"
            )
        return [i for i in ids if given.get(i) != "test"] if test else ids, test
    if source == "from_data":
        return [i for i in ids if given.get(i) in ("train", "valid")], [i for i in ids if given.get(i) == "test"]
    named = {image_id_of(name) for name in held_out or ()}
    held = {i for i in ids if given.get(i) == "test" and i not in named}
    return [i for i in ids if i not in held], [i for i in ids if i in held]


def configured_split(
    image_ids: Collection[str],
    basic: BasicExperiment,
    held_out: Iterable[str] | None,
    contents: Mapping[str, str],
    problems: Problems,
    given: Mapping[str, str] = MappingProxyType({}),
) -> tuple[list[str], list[str]]:
    """Return (train, valid) ids, without the validation images that training would have seen: those are problems.

    Args:
        image_ids: that can be used, those of the test part left out.
        basic: how many are held out.
        held_out: names of the validation images, where a file has them.
        contents: what each image holds, by id.
        problems: to add each leak to.
        given: the side that the data gives an image, by ID.

    Raises:
        DataError: for names that are not known, or if a side would be empty.
    """
    source = split_source(basic, given)
    if source == "from_data" and any(given[i] == "valid" for i in image_ids):
        what, names = "the data's validation part", [i for i in image_ids if given[i] == "valid"]
    elif source == "file":
        what, names = "manual_valid_ids_file", [image_id_of(name) for name in held_out or ()]
    else:
        return random_split(image_ids, basic.valid_size, basic.seed, contents)
    known_only = basic.on_bad_data == "skip"  # an image that was left out may be named
    train, valid = manual_split(image_ids, [i for i in names if i in image_ids or not known_only], what)
    leaking = dict(leaks(train, valid, contents))
    lines = [f"{i} is the same picture as {other}, which is trained on" for i, other in leaking.items()]
    if len(leaking) == len(valid):
        raise DataError(f"{what}: every one of its images stands in training, too:\n{listed(lines)}")
    problems.add(f"image(s) of {what} stand in training under another ID", lines)
    return train, [i for i in valid if i not in leaking]


def random_split(
    image_ids: Iterable[str], valid_size: float | int, seed: int, contents: Mapping[str, str] | None = None
) -> tuple[list[str], list[str]]:
    """Return (train, valid) ids, each sorted. An image's place in the draw depends on its id and the seed alone.

    Images of equal content are drawn together, in the place of the first of them, so that none is on both sides.

    Args:
        image_ids: in any order.
        valid_size: a count, or a share.
        seed: of the draw.
        contents: what each image holds, by id; an id that is not in it is like no other.

    Raises:
        DataError: if no image would be left on one side.
    """
    ids = sorted(image_ids)
    count = valid_size if isinstance(valid_size, int) else max(1, round(valid_size * len(ids)))
    if not 1 <= count < len(ids):
        raise DataError(
            f"valid_size: expected to leave images on both sides, found {count} of {len(ids)} images for validation"
        )
    drawn: set[str] = set()
    groups = equal_images(ids, contents or {})
    for first in sorted(groups, key=lambda image_id: seed_of("split", seed, image_id)):
        if len(drawn) + len(groups[first]) <= count:
            drawn.update(groups[first])
            if len(drawn) == count:
                break
    if not drawn:
        raise DataError(
            f"valid_size: {count} of {len(ids)} images cannot be held out: they are {len(groups)} pictures under several IDs each, which stay together"
        )
    return [i for i in ids if i not in drawn], [i for i in ids if i in drawn]


def joint_contents(ids: Iterable[str], inputs: Collection[Mapping[str, str]]) -> dict[str, str]:
    """Return what each image holds in all inputs together, from what it holds in each; nothing without inputs."""
    return {i: " ".join(contents[i] for contents in inputs) for i in ids} if inputs else {}


def equal_images(ids: Iterable[str], contents: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the ids that hold the same picture, by the first of them; most stand alone."""
    first_of: dict[str, str] = {}
    groups: dict[str, list[str]] = {}
    for image_id in ids:
        content = contents.get(image_id)
        first = image_id if content is None else first_of.setdefault(content, image_id)
        groups.setdefault(first, []).append(image_id)
    return groups


def leaks(train: Iterable[str], valid: Iterable[str], contents: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (validation id, training id) for each validation image whose content a training image has, too."""
    in_training: dict[str, str] = {}
    for image_id in train:
        if image_id in contents:
            in_training.setdefault(contents[image_id], image_id)
    return [(i, in_training[contents[i]]) for i in valid if contents.get(i) in in_training]


def manual_split(
    image_ids: Iterable[str], valid_ids: Iterable[str], what: str = "manual_valid_ids_file"
) -> tuple[list[str], list[str]]:
    """Return (train, valid) ids, each sorted, with exactly `valid_ids` held out. `what` names where they come from.

    Raises:
        DataError: listing the ids that no caption has, or if no image is left to train on.
    """
    ids, valid = set(image_ids), set(valid_ids)
    if unknown := sorted(valid - ids):
        near = did_you_mean(unknown[0], ids) if len(ids) < 50_000 else ""
        raise DataError(
            f"{what}: {len(unknown)} of {len(valid)} IDs have no image with a caption:\n{listed(unknown)}{near}"
        )
    if not valid or valid == ids:
        raise DataError(
            f"{what}: expected to leave images on both sides, found {len(valid)} of {len(ids)} for validation"
        )
    return sorted(ids - valid), sorted(valid)


def read_ids(path: str | Path) -> list[str]:
    """Read one ID a line; empty lines are skipped. Raises DataError if the file cannot be read."""
    try:
        lines = regular(Path(path)).read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text: {error.reason}") from error
    return [line.strip() for line in lines if line.strip()]
