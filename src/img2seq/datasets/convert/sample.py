"""An image of a data set as every target writes it, and the file names that its ID gives."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from img2seq.data.picture import Picture
from img2seq.data.records import image_id_of, is_image_name

SIDES = {"train": "train", "valid": "validation", "test": "test"}  # as Hugging Face writes them
MOST_BYTES_OF_A_PART = 200  # file systems allow 255; some count an accent as a letter of its own
MOST_BYTES_OF_A_NAME = 1000
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sample:
    """An image with its captions.

    Attributes:
        image_id: by which it is known when the target is read again.
        name: of its picture: a path with an extension that any system can hold.
        captions: in the order of the source.
        side: train, validation or test; "" for none.
        number: the source's own number of the image, None where it has none.
        picture: where its bytes are.
    """

    image_id: str
    name: str
    captions: tuple[str, ...]
    side: str
    number: int | None
    picture: Picture

    @property
    def written_id(self) -> str:
        """Return the ID so that it is read as it is: the reader takes an image's extension away (`x.jpg` may be an ID)."""
        plain = image_id_of(self.image_id) == self.image_id
        return self.image_id if plain else self.image_id + PurePosixPath(self.name).suffix


def names_of(extensions: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the file name of each image, and why an ID cannot be one as it is; then the name is made from the ID.

    Args:
        extensions: of each picture, with its dot, by ID.
    """
    names: list[str] = []
    problems: dict[str, str] = {}
    wanted = {f"{image_id}{extension}".casefold() for image_id, extension in extensions.items()}
    seen: set[str] = set()
    for image_id, extension in extensions.items():
        name = f"{image_id}{extension}"
        problem = name_problem(name)
        if not problem and name.casefold() in seen:
            problem = "differs from another in upper and lower case alone"
        elif not problem and (folder := next((f for f in _folders(name) if f.casefold() in wanted), None)):
            problem = f"needs a folder {folder}, which is the name of a picture"
        if problem:
            problems[image_id] = problem
            name = made_name(image_id) + extension
        seen.add(name.casefold())
        names.append(name)
    return names, problems


def name_problem(name: str) -> str:
    """Return why a path cannot be that of a file on every system, "" where it can."""
    if len(name.encode()) > MOST_BYTES_OF_A_NAME:
        return "is too long"
    for part in name.split("/"):
        if part in ("", ".", ".."):
            return "has an empty part, . or .."
        if part[0] == ".":
            return "has a part that begins with a dot, which hides a file"
        if len(part.encode()) > MOST_BYTES_OF_A_PART:
            return f"has a part of more than {MOST_BYTES_OF_A_PART} bytes"
        if found := _FORBIDDEN.search(part):
            return f"has {found[0]!r}, which Windows does not allow in names"
        if part != part.strip() or part[-1] == ".":
            return "has a part with a blank around it or a dot at its end, which Windows takes away"
        if _DEVICES.match(part):
            return "has a part that is the name of a device on Windows"
    return ""


def made_name(text: str) -> str:
    """Return a name for what cannot be one as it is: its letters and digits, and a digest that no other text has."""
    plain = re.sub(r"[^\w-]+", "_", text, flags=re.ASCII).strip("_")[:40]
    return f"{plain or 'image'}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def are_kept(samples: Sequence[Sample], paths: Sequence[str]) -> bool:
    """Tell whether IDs must be written beside the pictures' paths, for they are not the names that the paths end with.

    It is all of a set or none: which ID a path gives depends on the other paths.
    """
    return any(
        "/" in sample.image_id or image_id_of(PurePosixPath(path).name) != sample.image_id
        for sample, path in zip(samples, paths, strict=True)
    )


def by_side(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Return the samples of each side, in their order; those of no side under ""."""
    sides: dict[str, list[Sample]] = {}
    for side in (*SIDES.values(), ""):
        if of_side := [sample for sample in samples if sample.side == side]:
            sides[side] = of_side
    return sides


def shards(samples: Sequence[Sample], size: int) -> list[tuple[str, int, int, list[Sample]]]:
    """Return (side, number, how many of that side, samples) of each shard; images in no split are `data`: no word that means a side."""
    found = []
    for side, of_side in by_side(samples).items():
        parts = [of_side[start : start + size] for start in range(0, len(of_side), size)]
        found += [(side or "data", number, len(parts), part) for number, part in enumerate(parts)]
    return found


def extension_in(name: str) -> str:
    """Return the extension of a picture's name, "" where it has none of an image."""
    extension = PurePosixPath(name).suffix
    return extension if is_image_name(f"x{extension}") else ""


def _folders(name: str) -> list[str]:
    return [parent.as_posix() for parent in PurePosixPath(name).parents][:-1]
