"""Bring captions and images together, and say what does not fit before anything is trained."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from img2seq.data.picture import Picture
from img2seq.data.text import clean_name, is_utf8
from img2seq.errors import DataError, did_you_mean, listed, shown

if TYPE_CHECKING:
    from img2seq.config.globals import BasicExperiment

EXTENSIONS = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".mpo",
        ".avif",
    )
)
# Files that a person takes for pictures and that are not read: counted, never passed over in silence.
NOT_READ = frozenset(
    (".jxl", ".jp2", ".j2k", ".svg", ".psd", ".xcf", ".ico", ".tga", ".exr", ".hdr", ".eps", ".pdf",
     ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf")
)  # fmt: skip


HEIF = frozenset((".heic", ".heif", ".hif"))  # read where the extra `formats` is installed


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
    stem, dot, _ = name.rpartition(".")
    return stem.rstrip() if dot and stem and is_image_name(name) else name


def is_image_name(name: str) -> bool:
    """Tell whether a file of this name is taken for an image."""
    extension = os.path.splitext(name)[1].lower()  # noqa: PTH122  (many names)
    return extension in EXTENSIONS or (extension in HEIF and heif_is_read())


@functools.cache
def heif_is_read() -> bool:
    """Tell whether the library that reads HEIC pictures is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def shortest_ids(long_ids: Collection[str]) -> dict[str, str]:
    """Return an ID for each: the last part (x of a/x), or all of it where several have that last part."""
    short = {long: PurePosixPath(long).name for long in long_ids}
    count = Counter(short.values())
    return {long: name if count[name] == 1 else long for long, name in short.items()}


@dataclass(frozen=True)
class FoundImages:
    """The images of a folder, or those that an archive or a list has.

    Attributes:
        where: they are.
        pictures: by their names without extension, with the folders before them.
        clashes: a line for each further file that claims a name.
        refused: a line for each file that is not read: a link that leads out of the folder or nowhere, a name that is not UTF-8.
        unread: pictures of kinds that are not read, as "2 .heic, 1 .svg"; "" for none.
    """

    where: str
    pictures: dict[str, Picture]
    clashes: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    unread: str = ""


def find_images(folder: str | Path) -> FoundImages:
    """Return the image files of a folder and its subfolders.

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
    unread = unread_pictures(folder)
    found = FoundImages(str(folder), {}, unread=unread)
    for path in images_below(folder):
        if not is_utf8(str(path)):
            found.refused.append(f"{os.fsencode(path)!r} has a name that is not UTF-8")
        elif path.is_symlink() and (where := _leads_astray(path, folder)):
            found.refused.append(f"{path} is a link that leads {where}")
        else:
            name = image_id_of(path.relative_to(folder).as_posix())
            first = found.pictures.setdefault(name, path)
            if first != path:
                found.clashes.append(f"{name}: {first} and {path}")
    if not found.pictures:
        why = f" that can be read:\n{listed(found.refused)}" if found.refused else ""
        raise DataError(f"{folder}: expected images ({', '.join(sorted(EXTENSIONS))}), found {unread or 'none'}{why}")
    return found


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
            if is_image_name(name) and not name.startswith("."):
                yield here / name


def unread_pictures(folder: str | Path) -> str:
    """Return how many pictures of kinds that are not read stand in a folder and its subfolders, as "2 .heic, 1 .svg"; "" for none."""
    endings = Counter(Path(name).suffix.lower() for _, _, names in os.walk(folder) for name in names if name[:1] != ".")
    unread = NOT_READ if heif_is_read() else NOT_READ | HEIF
    return ", ".join(f"{n:,} {ending}" for ending, n in endings.most_common() if ending in unread)


@dataclass(frozen=True)
class Matched:
    """Which picture each captioned image has.

    Attributes:
        pictures: by the IDs of the captions.
        missing: a line for each ID without one, by ID.
        unused: the other pictures, by IDs of their own.
    """

    pictures: dict[str, Picture]
    missing: dict[str, str]
    unused: dict[str, Picture]

    def of(self, ids: Iterable[str]) -> Matched:
        """Return what was found for some of the images."""
        ids = list(ids)
        pictures = {i: self.pictures[i] for i in ids if i in self.pictures}
        return Matched(pictures, {i: self.missing[i] for i in ids if i in self.missing}, self.unused)


def match_pictures(captioned: Collection[str], paths: Mapping[str, str], found: Mapping[str, Picture]) -> Matched:
    """Find the picture of each captioned image.

    A picture is named by its path, as the captions write it, or else by the image's ID. Where no picture has just that name it is the one
    whose path ends so (captions say `x`, the file is `a/x.jpg`) or of which the name is the end (captions say `train2017/x.jpg`, the
    folder is train2017 itself), unless several are.

    Args:
        captioned: IDs.
        paths: of pictures as captions write them, by ID; only where they do.
        found: pictures by their names without extension, with the folders before them.
    """
    names = {i: _names(i, image_id_of(paths[i]) if i in paths else i) for i in captioned}
    chosen = {i: name for i in captioned if (name := next((n for n in names[i] if n in found), None)) is not None}
    taken = set(chosen.values())
    free = [name for name in found if name not in taken]
    by_ending: dict[str, list[str]] = {}
    for name in free:
        for ending in _endings(name):
            by_ending.setdefault(ending, []).append(name)
    shorter = {image_id_of(name): name for name in free}  # x.gif may be the name of x.gif.jpg
    alike: dict[str, list[str]] = {}
    claims: dict[str, list[str]] = {}
    for i in captioned:
        if i in chosen:
            continue
        fitting: list[str] = []
        for name in (
            names[i] if names[i][0] == i else names[i][:1]
        ):  # of a path with folders the bare ID says too little
            fitting = (
                fitting or by_ending.get(name) or [end for end in _endings(name) if by_ending.get(end) == [end]][:1]
            )
        if not fitting and i in shorter:
            fitting = [shorter[i]]
        if len(fitting) == 1:
            claims.setdefault(fitting[0], []).append(i)
        alike[i] = fitting
    for name, claimants in claims.items():
        if len(claimants) == 1:  # what several could mean is none of theirs
            chosen[claimants[0]] = name
    owner: dict[str, str] = {}
    twice = {i for i in captioned if i in chosen and owner.setdefault(chosen[i], i) != i}
    missing = {
        i: f"{i} (its picture is that of {owner[chosen[i]]}, too)" if i in twice
        else f"{i} (several files have this name: {', '.join(alike[i][:3])})" if len(alike.get(i, [])) > 1
        else f"{i} ({alike[i][0]} may be that of {', '.join(claims[alike[i][0]][:3])})" if alike.get(i) else i
        for i in captioned if i not in chosen or i in twice
    }  # fmt: skip
    of_own = shortest_ids([name for name in found if name not in owner])
    unused = {(short if short not in captioned else name): found[name] for name, short in of_own.items()}
    return Matched({i: found[chosen[i]] for i in captioned if i in chosen and i not in twice}, missing, unused)


def _names(image_id: str, path: str) -> list[str]:
    """Return the names that a picture may have, the likeliest first: its path, or the ID where that is none of the path's ends."""
    return [path, image_id] if path == image_id or path.endswith(f"/{image_id}") else [image_id, path]


def _endings(name: str) -> list[str]:
    """Return a/b/x, b/x and x of a/b/x."""
    parts = name.strip("/").split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


def check_matched(
    matched: Matched, found: FoundImages, captioned: Collection[str], input_name: str, problems: Problems
) -> list[str]:
    """Add what is wrong with the images of an input to the problems, and return what else to say of them.

    Raises:
        DataError: if no image has a caption.
    """
    problems.add(f"ID(s) of input {input_name} are claimed by two files", found.clashes)
    problems.add(f"file(s) in {found.where} are not read", found.refused)
    if len(matched.missing) == len(captioned):
        example, some = next(iter(captioned)), next(iter(found.pictures.values()))
        name = some.name if isinstance(some, Path) else str(some)
        reasons = [line for i, line in matched.missing.items() if line != i]
        why = f":\n{listed(reasons)}" if reasons else ""
        raise DataError(
            f"{found.where}: none of the {len(captioned)} captioned IDs has an image. An ID is {shown(example)}, an image is {name!r}{why}"
        )
    problems.add(f"ID(s) with captions have no image in {found.where}", list(matched.missing.values()))
    notes = []
    if matched.unused:
        notes.append(f"{len(matched.unused):,} image(s) in {found.where} have no caption and are not used")
    if found.unread:
        notes.append(f"{found.where}: pictures of kinds that are not read: {found.unread}")
    return notes


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
