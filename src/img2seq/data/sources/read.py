"""Find out which format captions have, and read them: the one way from captions on disk to records, and from records to images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from img2seq.config.outputs import ReadOptions
from img2seq.data.picture import Picture, are_different
from img2seq.data.records import (
    FoundImages,
    Problems,
    check_matched,
    find_images,
    image_id_of,
    images_below,
    match_pictures,
    shortest_ids,
)
from img2seq.data.sources import (
    blip,
    caption_lists,
    coco_annotations,
    flickr_tokens,
    image_folder,
    json_lines,
    karpathy,
    llava,
    parquet,
    sidecar,
    table,
    webdataset,
)
from img2seq.data.sources.content import ARCHIVES, GUESSED, Content
from img2seq.data.sources.source import Record, Source
from img2seq.data.sources.splits import SIDES, side_of
from img2seq.errors import DataError, listed, shown, shown_all
from img2seq.progress import counted

# Asked in this order; the table comes last, for nearly any text could be one.
FORMATS = [
    image_folder.FORMAT, webdataset.FORMAT, parquet.FORMAT, sidecar.FORMAT, json_lines.FORMAT, llava.FORMAT, blip.FORMAT,
    karpathy.FORMAT, coco_annotations.FORMAT, caption_lists.FORMAT, flickr_tokens.FORMAT, table.FORMAT,
]  # fmt: skip


@dataclass(frozen=True)
class CaptionsFound:
    """Captions by image ID in the order of the source, and what else it says of its images.

    Attributes:
        captions: by ID.
        problems: a line for each row that cannot be used.
        title: what was read, in a few words.
        notes: what else to say of it.
        paths: of each picture as the source writes it, by ID; only where it does.
        pictures: where the source itself has them, by ID.
        written_splits: the side of each image as the source writes it, by ID; only where it does.
        own_ids: the ids that the source has for its images, by ID; the one that results are written with first.
    """

    captions: dict[str, list[str]]
    problems: list[str]
    title: str = ""
    notes: list[str] = field(default_factory=list)
    paths: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, Picture] = field(default_factory=dict)
    written_splits: dict[str, str] = field(default_factory=dict)
    own_ids: dict[str, list[str | int]] = field(default_factory=dict)

    @property
    def splits(self) -> dict[str, str]:
        """Return train, valid or test for each image that the source puts on a side; where it marks none as train, those that it leaves open."""
        sides = {image_id: side for image_id, written in self.written_splits.items() if (side := side_of(written))}
        if sides and "train" not in sides.values():
            sides |= {image_id: "train" for image_id in self.captions if image_id not in sides}
        return sides

    @property
    def summary(self) -> str:
        """Return what was read in a line: `COCO annotations: 80 images, 400 captions`."""
        captions = counted(sum(map(len, self.captions.values())), "caption")
        sides = Counter(self.splits.values())
        if not sides:
            return f"{self.title}: {counted(len(self.captions), 'image')}, {captions}"
        parts = [
            f"{sides[side]:,} {name}"
            for side, name in (("train", "train"), ("valid", "val"), ("test", "test"))
            if sides[side]
        ]
        without = len(self.captions) - sides.total()
        return f"{self.title}: {', '.join(parts)} images, {f'{without:,} in no split, ' if without else ''}{captions}"

    def results_id(self, image_id: str) -> str | int:
        """Return the id that results are written with: the source's own where it has one."""
        own = self.own_ids.get(image_id)
        return own[0] if own else image_id


def read_source(path: str | Path, options: ReadOptions = GUESSED, *, captions_needed: bool = True) -> Source:
    """Return the captions that a path leads to, of whichever format they are.

    Args:
        path: a file, a folder, or a pattern of shards.
        options: what is said of them in place of what would be guessed.
        captions_needed: False for a list of pictures, of which captions are left out.

    Raises:
        DataError: if it cannot be read, or no format knows it.
    """
    content = Content(path, options, captions_needed=captions_needed)
    if options.format is not None:
        chosen = next(known for known in FORMATS if known.key == options.format)
        if not chosen.recognise(content):
            raise DataError(f"{path}: expected {chosen.name}, found {_seems_to_be(content)}")
        return Source(content, chosen)
    for known in FORMATS:
        if known.recognise(content):
            return Source(content, known)
    names = ", ".join(known.key for known in FORMATS)
    raise DataError(f"{path}: expected captions in a format that is known ({names}), found {_seems_to_be(content)}")


def _seems_to_be(content: Content) -> str:
    """Return what a file is that no format knows, in a few words."""
    if content.is_folder:
        return "a folder"
    data = content.json
    if isinstance(data, dict):
        return f"a JSON object with the keys {shown_all(data)}" if data else "an empty JSON object"
    if isinstance(data, list):
        return f"a JSON list of {len(data):,}, the first {shown(data[0])}" if data else "an empty JSON list"
    return content.binary_kind or "text"


def read_captions(path: str | Path, options: ReadOptions = GUESSED, *, captions_needed: bool = True) -> CaptionsFound:
    """Read the captions of each image, from any format.

    An ID is text ("000000000009" stays so); one that comes several times has several captions.

    Raises:
        DataError: if the file cannot be read at all. Rows that cannot be used are returned as problems.
    """
    source = read_source(path, options, captions_needed=captions_needed)
    return joined(source, source.records())


def joined(source: Source, records: Iterable[Record]) -> CaptionsFound:
    """Return what the records of a source say of each image together; `x` and `x.jpg` are one image.

    A path becomes an ID without its ending, and without the folders before it where no other image has that name.
    """
    records = list(records)
    long_ids = [image_id_of(record.image_id) for record in records]
    short = shortest_ids({long for long, record in zip(long_ids, records, strict=True) if record.id_is_path})
    if n := source.content.n_several:
        source.content.notes.append(
            f"{source.content.path}: {n:,} {'entry' if n == 1 else 'entries'} with several pictures: the first is taken"
        )
    found = CaptionsFound({}, source.problems, source.content.title, source.content.notes)
    clashes: dict[str, str] = {}
    for record, long in zip(records, long_ids, strict=True):
        image_id = short[long] if record.id_is_path else long
        found.captions.setdefault(image_id, []).extend(record.captions)
        if record.path:
            found.paths.setdefault(image_id, record.path)
        if record.picture is not None:
            first_picture = found.pictures.setdefault(image_id, record.picture)
            if (
                first_picture != record.picture
                and image_id not in clashes
                and are_different(first_picture, record.picture)
            ):
                clashes[image_id] = (
                    f"image {shown(image_id)} stands for two pictures, {first_picture} and {record.picture}"
                )
        if record.split:
            first = found.written_splits.setdefault(image_id, record.split)
            if side_of(first) != side_of(record.split):
                known = "" if side_of(first) and side_of(record.split) else f"; expected a split of {', '.join(SIDES)}"
                clashes[image_id] = f"image {shown(image_id)} is in {shown(first)} and in {shown(record.split)}{known}"
        if image_id not in found.own_ids and (own := source.own_ids(record)):
            found.own_ids[image_id] = own
    found.problems.extend(clashes.values())
    for of_image in (found.captions, found.paths, found.pictures, found.written_splits, found.own_ids):
        for image_id in clashes:
            of_image.pop(image_id, None)  # of which side or picture it is cannot be known
    _check_sides(found)
    return found


def _check_sides(found: CaptionsFound) -> None:
    """Take away what is no side: a column `split` may mean something else, unless some of its values are sides."""
    unknown = {image_id: written for image_id, written in found.written_splits.items() if side_of(written) is None}
    if len(unknown) < len(found.written_splits):
        sides = ", ".join(SIDES)
        found.problems.extend(
            f"image {shown(i)}: expected a split of {sides}; found {shown(written)}" for i, written in unknown.items()
        )
    for image_id in unknown:
        del found.written_splits[image_id]


def is_folder_of_shards(content: Content) -> bool:
    """Tell whether a folder holds its pictures in shards, and none as files."""
    return bool(content.archives(*ARCHIVES)) and next(images_below(content.path), None) is None


def images_at(where: str | Path, known: Mapping[str, CaptionsFound] = MappingProxyType({})) -> FoundImages:
    """Return the images that an input has: those of a folder, or those that a source holds or names.

    Args:
        where: a folder of images, or a file, folder or pattern of shards.
        known: sources that have been read already, by their paths.

    Raises:
        DataError: where there is none, or a row of the source cannot be used.
    """
    content = Content(where)
    is_source = is_folder_of_shards(content) if content.is_folder else content.files[0].exists()
    if not is_source:
        return find_images(where)
    found = known.get(str(where)) or read_captions(where, captions_needed=False)
    if found.problems and str(where) not in known:  # of a source that is known they are listed already
        raise DataError(f"{where}: {len(found.problems)} row(s) cannot be used:\n{listed(found.problems)}")
    if not found.pictures:
        raise DataError(f"{where}: expected a folder of images or a source with pictures, found {found.title} alone")
    names = {image_id_of(found.paths.get(image_id, image_id)): picture for image_id, picture in found.pictures.items()}
    return FoundImages(str(where), names)


def match_images(
    captions: CaptionsFound, ids: Collection[str], where: str | Path, input_name: str, problems: Problems, source: str | Path = ""
) -> tuple[dict[str, Picture], list[str]]:  # fmt: skip
    """Return the picture of every captioned image, and what else to say of an input: images without a caption, or not read.

    Args:
        captions: of all images.
        ids: of those that are asked for.
        where: the input's images are.
        input_name: of the input.
        problems: to add to.
        source: where the captions come from: it may have the pictures, too.

    Raises:
        DataError: where there are no images, or none of them has a caption.
    """
    found = images_at(where, {str(source): captions})
    matched = match_pictures(captions.captions, captions.paths, found.pictures).of(ids)
    return matched.pictures, check_matched(matched, found, ids, input_name, problems)
