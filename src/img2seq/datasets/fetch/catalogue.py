"""Data sets that can be fetched: where their hosts keep them, how large they are, under which terms.

Lengths and SHA-256 of the files are those that TensorFlow Datasets recorded when it fetched them
(tensorflow_datasets/url_checksums/coco_captions.txt); the hosts themselves publish none that we know of. A mirror must serve
the same bytes, and plain HTTP is safe, for nothing is unpacked before its SHA-256 is right.
"""

from __future__ import annotations

from dataclasses import dataclass

from img2seq.errors import DataError, did_you_mean, shown

COCO = "http://images.cocodataset.org"  # by plain HTTP alone: its certificate is made out to another name
COCO_TERMS = "captions CC BY 4.0; pictures belong to those who put them on Flickr, Flickr's terms of use hold"


@dataclass(frozen=True)
class Archive:
    """A ZIP file that is fetched.

    Attributes:
        address: where its host has it.
        n_bytes: its length.
        sha256: of its content, in hexadecimal digits.
        members: patterns of what is unpacked; the rest stays packed.
        unpacked_bytes: of these members, about.
    """

    address: str
    n_bytes: int
    sha256: str
    members: tuple[str, ...]
    unpacked_bytes: int

    @property
    def name(self) -> str:
        return self.address.rpartition("/")[2]


@dataclass(frozen=True)
class DataSet:
    """A data set, in the order in which its files are fetched: small ones first, so that a mistake is found early.

    Attributes:
        title: what it is, in a few words.
        licence: its terms, in a few words.
        page: where the terms are read, or where it is asked for.
        archives: nothing where it is not fetched.
        captions: files of captions, relative to the folder; the first is that to train on.
        images: folders of images, relative to the folder.
        trained_on: the folder of images that the first captions are about.
        why_not: why it is not fetched, "" where it is.
    """

    title: str
    licence: str
    page: str
    archives: tuple[Archive, ...] = ()
    captions: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    trained_on: str = ""
    why_not: str = ""

    @property
    def n_bytes(self) -> int:
        return sum(archive.n_bytes for archive in self.archives)

    @property
    def unpacked_bytes(self) -> int:
        return sum(archive.unpacked_bytes for archive in self.archives)


def _pictures(name: str, n_bytes: int, sha256: str) -> Archive:
    # A JPEG cannot be packed further: a folder is as large as its ZIP file.
    return Archive(f"{COCO}/zips/{name}.zip", n_bytes, sha256, (f"{name}/*.jpg",), n_bytes)


DATA_SETS = {
    "coco2017": DataSet(
        title="COCO 2017: 118,287 training and 5,000 validation images with five captions each",
        licence=COCO_TERMS,
        page="https://cocodataset.org/#termsofuse",
        archives=(
            Archive(
                f"{COCO}/annotations/annotations_trainval2017.zip",
                252_907_541,
                "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
                ("annotations/captions_train2017.json", "annotations/captions_val2017.json"),
                100_000_000,
            ),
            _pictures("val2017", 815_585_330, "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05"),
            _pictures("train2017", 19_336_861_798, "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929"),
        ),
        captions=("annotations/captions_train2017.json", "annotations/captions_val2017.json"),
        images=("train2017", "val2017"),
        trained_on="train2017",
    ),
    "coco-karpathy": DataSet(
        title="COCO 2014 in Karpathy's split: 123,287 images, of which 5,000 are for validation and 5,000 for the test",
        licence=f"{COCO_TERMS}; the split has no licence that we know of",
        page="https://cs.stanford.edu/people/karpathy/deepimagesent/",
        archives=(
            Archive(
                "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
                36_745_453,
                "4cfd70132527b80933105e5829dc9034eaab9573482e2e680abbab6130244817",
                ("dataset_coco.json",),
                150_000_000,
            ),
            _pictures("val2014", 6_645_013_297, "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0"),
            _pictures("train2014", 13_510_573_713, "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775"),
        ),
        captions=("dataset_coco.json",),
        images=("train2014", "val2014"),
        trained_on=".",
    ),
    "flickr8k": DataSet(
        title="Flickr8k: 8,000 images with five captions each",
        licence="pictures belong to those who put them on Flickr and may not be passed on",
        page="https://forms.illinois.edu/sec/1713398",
        why_not="its pictures may not be passed on, and its host gives them to those who ask",
    ),
}


def find(name: str) -> DataSet:
    """Return the data set of a name.

    Raises:
        DataError: for a name that is not known, with the nearest one, or whose data set is not fetched, with the page to ask at.
    """
    found = DATA_SETS.get(name)
    if found is None:
        near = did_you_mean(name.lower(), DATA_SETS)
        raise DataError(f"data fetch: expected one of {', '.join(DATA_SETS)}; found {shown(name)}.{near}")
    if found.why_not:
        raise DataError(f"{name} is not fetched: {found.why_not}. Ask for it at {found.page}")
    return found


def size(n_bytes: float) -> str:
    """Return a size in bytes for people: "19.3 GB", "253 MB"."""
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= one:
            return f"{n_bytes / one:.1f} {unit}" if n_bytes < 100 * one else f"{n_bytes / one:,.0f} {unit}"
    return f"{n_bytes:.0f} bytes"
