"""An export in Node: transformers.js captions and tokenizes as we do, from the folder alone."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

from conftest import ROOT
from img2seq.data.image import from_any
from img2seq.data.tokenizers_json import to_tokenizers, tokenizer_config
from img2seq.inference.captioner import Captioner
from npm import example, program
from pictures import other_colours
from tokenizer_cases import ODD, TOKENIZERS

RESIZE = """
import { resize } from "RESIZE_JS";
const cases = JSON.parse(await new Response(process.stdin).text());
console.log(JSON.stringify(cases.map(({ pixels, from: [w, h], to: [tw, th], channels }) => Array.from(resize(Uint8ClampedArray.from(pixels), w, h, tw, th, channels)))));
"""
TOKENIZE = """
import { Tokenizer } from "@huggingface/tokenizers";
const { texts, kinds } = JSON.parse(await new Response(process.stdin).text());
console.log(JSON.stringify(kinds.map(({ tokenizer, config, numbers }) => {
  const reader = new Tokenizer(tokenizer, config);
  return { encoded: texts.map((text) => reader.encode(text).ids), decoded: numbers.map((some) => reader.decode(some, { skip_special_tokens: true })) };
})));
"""


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with examples/node and examples/browser, and the packages that each asks for."""
    program("node")
    folder = tmp_path_factory.mktemp("examples")
    example("browser", folder)
    return example("node", folder).parent


def answer(script: str, data: Any, folder: Path) -> Any:
    """Return what a script for Node makes of the data, both as JSON."""
    path = folder / "script.mjs"
    path.write_text(script, encoding="utf-8")
    done = subprocess.run([program("node"), path], input=json.dumps(data), capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def captions(examples: Path, *words: str | Path) -> dict[str, str]:
    """Return what examples/node writes: the caption of each picture."""
    command = [program("node"), str(examples / "node/caption.mjs"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return dict(line.split("\t") for line in done.stdout.splitlines())


def test_resize_in_javascript_is_that_of_pillow(tmp_path: Path) -> None:
    pick = np.random.default_rng(0)
    cases, expected = [], []
    sizes = [
        (64, 48, 32, 32),
        (500, 30, 32, 32),
        (31, 47, 224, 224),
        (1, 1, 8, 8),
        (40, 30, 40, 30),
        (40, 90, 40, 30),
        (90, 30, 40, 30),
    ]
    for width, height, to_width, to_height in [*sizes, *pick.integers(1, 200, (30, 4)).tolist()]:
        down_first = height - to_height > max(0, 2 * (width - to_width))
        if down_first and int(PIL.__version__.split(".")[0]) < 13:
            continue  # Pillow goes down first since then; a byte may differ by 1
        channels = 1 if width % 2 else 3
        pixels = pick.integers(0, 256, (height, width, channels), dtype=np.uint8)
        image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
        resized = np.asarray(image.resize((to_width, to_height), Image.Resampling.BILINEAR))
        cases.append({"pixels": pixels.ravel().tolist(), "from": [width, height], "to": [to_width, to_height], "channels": channels})  # fmt: skip
        expected.append(resized.ravel().tolist())
    script = RESIZE.replace("RESIZE_JS", (ROOT / "examples/browser/resize.js").as_uri())
    assert answer(script, cases, tmp_path) == expected


def test_the_library_in_javascript_encodes_and_decodes_alike(examples: Path) -> None:
    pick = random.Random(0)
    texts = ["".join(pick.choices(ODD, k=pick.randrange(9))) for _ in range(500)]
    kinds: list[dict[str, Any]] = [
        {
            "tokenizer": json.loads(to_tokenizers(tokenizer)),
            "config": tokenizer_config(tokenizer),
            "numbers": [pick.choices(range(len(tokenizer)), k=pick.randrange(1, 9)) for _ in range(100)],
        }
        for tokenizer in TOKENIZERS.values()
    ]
    found = answer(TOKENIZE, {"texts": texts, "kinds": kinds}, examples / "node")
    for (name, ours), kind, theirs in zip(TOKENIZERS.items(), kinds, found, strict=True):
        assert theirs["encoded"] == [ours.encode(text) for text in texts], name
        if "meaning in patterns" not in name:  # `$` would mean something in JavaScript's replacements
            assert theirs["decoded"] == [ours.decode(numbers) for numbers in kind["numbers"]], name


def test_transformers_js_gives_the_captions_of_the_run(
    run: Path, images: Path, exported: Path, examples: Path, tmp_path: Path
) -> None:
    ours = Captioner.load(run, device="cpu")
    pictures = sorted(images.glob("*.png"))
    expected = [caption.text for caption in ours.caption([str(picture) for picture in pictures], method="greedy")]
    assert len(set(expected)) > 4
    (spec,) = ours.trained.specs.values()
    for picture in pictures:  # in the model's size nothing is resized
        Image.fromarray(from_any(picture, spec)).save(tmp_path / picture.name)
    found = captions(examples, exported, *(tmp_path / picture.name for picture in pictures))
    assert list(found.values()) == expected


def test_pictures_of_any_kind_have_the_captions_of_the_run(
    run: Path, images: Path, exported: Path, examples: Path, tmp_path: Path
) -> None:
    picture = min(images.glob("*.png"))
    turned = Image.Exif()
    turned[274] = 6
    with Image.open(picture) as image:
        big = image.resize((300, 200))
        big.save(tmp_path / "large.jpg", quality=95)
        big.save(tmp_path / "turned.jpg", exif=turned)
        big.convert("L").save(tmp_path / "gray.png")
        transparent = big.convert("RGBA")
        transparent.putalpha(0)  # white, whatever colours are under it
        transparent.save(tmp_path / "transparent.png")
        big.save(tmp_path / "profile.png", icc_profile=other_colours())
    pictures = [*sorted(images.glob("*.png")), *sorted(tmp_path.glob("*.*g"))]
    expected = Captioner.load(run, device="cpu").caption([str(path) for path in pictures], method="greedy")
    found = captions(examples, "--pillow", exported, *pictures)
    assert list(found.values()) == [caption.text for caption in expected]
