"""Bring captions and images together, and say what does not fit before anything is trained."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from img2seq.config.globals import BasicExperiment
from img2seq.data.text import clean_name, is_utf8
from img2seq.errors import DataError, did_you_mean, listed, shown

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".mpo")
)
# Files that a person takes for pictures and that are not read: counted, never passed over in silence.
NOT_READ = frozenset(
    (".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".svg", ".psd", ".xcf", ".ico", ".tga", ".exr", ".hdr", ".eps", ".pdf",
     ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf")
)  # fmt: skip


@dataclass
class Problems:
    """What is wrong with the data, by kind."""

    by_kind: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, entries: Sequence[str]) -> None:
        if entries:
            self.by_kind.setdefault(kind, []).extend(entries)

    def __bool__(self) -> bool:
        return bool(self.by_kind)

    def text(self, *, most: int = 10) -> str:
        return "\n".join(
            f"{len(entries)} {kind}:\n{listed(entries, most=most)}" for kind, entries in self.by_kind.items()
        )


def image_id_of(name: str) -> str:
    """Return the ID of a file name or of an ID written with a file's extension, in the form in which IDs are compared."""
    name = clean_name(name)
    stem, dot, extension = name.rpartition(".")
    return stem.rstrip() if dot and stem and f".{extension.lower()}" in EXTENSIONS else name


@dataclass(frozen=True)
class FoundImages:
    """The image files of a folder.

    Attributes:
        files: by ID.
        clashes: a line for each further file that claims an ID.
        refused: a line for each file that is not read: a link that leads out of the folder or nowhere, a name that is not UTF-8.
    """

    files: dict[str, Path]
    clashes: list[str]
    refused: list[str]


def find_images(folder: str | Path, captioned: Collection[str] = ()) -> FoundImages:
    """Return the image files of a folder and its subfolders.

    An ID is the file's name without the extension, or with the folders before it (a/x) where several files have that name, or
    where captions name it so.

    Raises:
        DataError: if the folder is missing or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        parent = folder.parent
        near = did_you_mean(folder.name, [p.name for p in parent.iterdir()]) if parent.is_dir() else ""
        raise DataError(
            f"{folder}: expected a folder of images, found {'a file' if folder.exists() else 'nothing'}.{near}"
        )
    found, paths = FoundImages({}, [], []), []
    for path in images_below(folder):
        if not is_utf8(str(path)):
            found.refused.append(f"{os.fsencode(path)!r} has a name that is not UTF-8")
        elif path.is_symlink() and (where := _leads_astray(path, folder)):
            found.refused.append(f"{path} is a link that leads {where}")
        else:
            paths.append(path)
    for image_id, path in zip(file_ids([path.relative_to(folder) for path in paths], captioned), paths, strict=True):
        first = found.files.setdefault(image_id, path)
        if first != path:
            found.clashes.append(f"{image_id}: {first} and {path}")
    if not found.files:
        why = f" that can be read:\n{listed(found.refused)}" if found.refused else ""
        others = unread_pictures(folder) or "none"
        raise DataError(f"{folder}: expected images ({', '.join(sorted(EXTENSIONS))}), found {others}{why}")
    return found


def file_ids(paths: Sequence[Path], captioned: Collection[str] = ()) -> list[str]:
    """Return the ID of each file of a folder, as `find_images` gives it; paths are relative to the folder."""
    short = [image_id_of(path.name) for path in paths]
    long = [image_id_of(path.as_posix()) for path in paths]
    count = Counter(short)
    return [
        with_folder if count[name] > 1 or with_folder in captioned else name
        for name, with_folder in zip(short, long, strict=True)
    ]


def _leads_astray(link: Path, folder: Path) -> str:
    """Return where a link leads that is not followed, "" if it leads to a file in the folder."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        return "nowhere" if isinstance(error, FileNotFoundError) else f"to no file: {error}"
    return "" if target.is_relative_to(folder.resolve()) else f"out of the folder, to {str(target)!a}"


def images_below(folder: str | Path) -> Iterator[Path]:
    """Yield files with an image's extension, in order; linked folders are not entered."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        here = Path(root)
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith("."):  # noqa: PTH122  many names
                yield here / name


def unread_pictures(folder: str | Path) -> str:
    """Return how many pictures of kinds that are not read stand in a folder and its subfolders, as "2 .heic, 1 .svg"; "" for none."""
    endings = Counter(Path(name).suffix.lower() for _, _, names in os.walk(folder) for name in names if name[:1] != ".")
    return ", ".join(f"{n:,} {ending}" for ending, n in endings.most_common() if ending in NOT_READ)


def files_by_captioned_id(files: Mapping[str, Path], captioned: Collection[str]) -> dict[str, Path]:
    """Return files by the IDs that captions have for them.

    An ID such as `x.gif` may be a file name or, without an extension, that of `x.gif.jpg`: the second where nothing else fits.
    """
    shorter = Counter(image_id_of(image_id) for image_id in files if image_id not in captioned)
    found = {}
    for image_id, path in files.items():
        short = image_id_of(image_id)
        renamed = image_id not in captioned and short in captioned and short not in files and shorter[short] == 1
        found[short if renamed else image_id] = path
    return found


def missing_images(captioned: Iterable[str], files: Collection[str]) -> list[str]:
    """Return a line for each captioned ID that has no file: the ID, and those of several files that have this name."""
    alike: dict[str, list[str]] = {}
    for image_id in files:
        if "/" in image_id:
            alike.setdefault(PurePosixPath(image_id).name, []).append(image_id)
    return [
        f"{i} (several files have this name: {', '.join(alike[i][:3])})" if i in alike else i
        for i in captioned
        if i not in files
    ]


def match_images(
    captions: Mapping[str, Sequence[str]], folder: str | Path, input_name: str, problems: Problems
) -> tuple[dict[str, Path], list[str]]:
    """Return the image file of every captioned ID, and what else to say of the folder: images without a caption, or not read."""
    images = find_images(folder, captions)
    found = files_by_captioned_id(images.files, captions)
    problems.add(f"ID(s) of input {input_name} are claimed by two files", images.clashes)
    problems.add(f"file(s) in {folder} are not read", images.refused)
    missing = missing_images(captions, found)
    if len(missing) == len(captions):
        example, some = next(iter(captions)), next(iter(found.values()))
        raise DataError(
            f"{folder}: none of the {len(captions)} captioned IDs has an image. An ID is {shown(example)}, an image is {some.name!r}"
        )
    problems.add(f"ID(s) with captions have no image in {folder}", missing)
    notes = []
    if without_caption := len(found) - len(captions) + len(missing):
        notes.append(f"{without_caption:,} image(s) in {folder} have no caption and are not used")
    if unread := unread_pictures(folder):
        notes.append(f"{folder}: pictures of kinds that are not read: {unread}")
    return {image_id: found[image_id] for image_id in captions if image_id in found}, notes


def check_broken_share(broken: Mapping[str, str], n_images: int, basic: BasicExperiment) -> None:
    """Raise DataError under the policy `skip`, where more images are broken than chance explains.

    A few bad files in a million are left out; a hundredth of them is a download or a copy that went wrong.
    """
    if basic.on_bad_data == "skip" and len(broken) > basic.max_broken_share * n_images:
        raise DataError(
            f"{len(broken):,} of {n_images:,} images cannot be used, more than the share of {basic.max_broken_share:g} that on_bad_data: skip "
            f"leaves out (globals.basic_experiment.max_broken_share):\n{listed(broken.values())}"
        )


def settle(problems: Problems, policy: Literal["error", "skip"]) -> str:
    """Raise what is wrong, or under the policy `skip` return it as a message.

    Raises:
        DataError: under the policy `error`, listing every kind of problem with counts.
    """
    if not problems:
        return ""
    if policy == "error":
        raise DataError(
            f"{problems.text()}\nCorrect the data, or leave these out with globals.basic_experiment.on_bad_data: skip"
        )
    return f"left out (on_bad_data: skip):\n{problems.text()}"
