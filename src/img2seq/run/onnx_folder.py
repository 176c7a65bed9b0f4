"""Where each file of an export for ONNX Runtime is, and how those that captioning needs are read. What they hold: docs/export.md.

A folder may come from anywhere: nothing is believed before it is checked, and no other file than its own is read.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from img2seq.config.decoding import Decoding
from img2seq.data.image import ImageSpec
from img2seq.data.tokenizer import Tokenizer
from img2seq.data.tokenizers_json import from_tokenizers
from img2seq.errors import ConfigError, DataError, RunError, shown
from img2seq.files import regular
from img2seq.run.folder import read_json

Precision = Literal["fp32", "fp16", "int8"]
SUFFIXES: dict[Precision, str] = {
    "fp32": "",
    "fp16": "_fp16",
    "int8": "_quantized",
}  # as transformers.js looks for them
SECTION = "img2seq"  # of config.json
MOST = 1_000_000  # of any size; a folder may say anything
FORMAT_VERSION = 1
MOST_SIDE = 4096  # pixels, as of a run


class OnnxFolder:
    """Paths of an export's files."""

    def __init__(self, path: str | Path):
        self.path = path = Path(path)
        self.readme = path / "README.txt"
        self.config = path / "config.json"
        self.generation = path / "generation_config.json"
        self.preprocessor = path / "preprocessor_config.json"
        self.tokenizer = path / "tokenizer.json"
        self.tokenizer_config = path / "tokenizer_config.json"
        self.export = path / "export.json"
        self.parity = path / "parity.json"
        self.graphs = path / "onnx"

    def encoder(self, precision: Precision) -> Path:
        """Return where the encoder's graph is."""
        return self.graphs / f"encoder_model{SUFFIXES[precision]}.onnx"

    def decoder(self, precision: Precision) -> Path:
        """Return where the decoder's graph is."""
        return self.graphs / f"decoder_model_merged{SUFFIXES[precision]}.onnx"

    @property
    def needed(self) -> list[Path]:
        """Return the files that captioning in single precision, and every other reader, cannot do without."""
        settings = [self.config, self.generation, self.preprocessor, self.tokenizer, self.tokenizer_config]
        return [*settings, self.encoder("fp32"), self.decoder("fp32")]

    @property
    def all_variants(self) -> list[Path]:
        """Return where graphs of other precisions would be."""
        return [place(p) for p in SUFFIXES if p != "fp32" for place in (self.encoder, self.decoder)]

    @property
    def signed(self) -> list[Path]:
        """Return the files whose digests are written down: all that decide a caption."""
        return [*self.needed, *(path for path in self.all_variants if path.exists())]


@dataclass(frozen=True)
class OnnxFacts:
    """What an export says of itself, in config.json: all that captioning needs beside the graphs and the tokenizer.

    Attributes:
        run: name of the run it was made from.
        step: of training.
        n_parameters: of the run's model.
        input_name: what its configuration calls the picture.
        height: of the pixels.
        width: of the pixels.
        mode: channels of the pixels.
        resize_approach: how a picture gets this size.
        max_pixels: of a picture that is read.
        max_bytes: of its file.
        mean: of each channel, pixel values in 0..1.
        std: of each channel, pixel values in 0..1.
        output_name: what its configuration calls the caption.
        max_length: most tokens of a caption where nobody says another number; None is that of `Decoding`.
        most_tokens: of a caption, that the decoder has places for.
        vocabulary: tokens.
        n_layers: of the decoder.
        n_heads: of the decoder.
        head_width: of the decoder.
        n_places: of the memory.
        tokenizer_digest: of the tokenizer it was trained with.
        decoding: settings that the run was tuned with.
    """

    run: str
    step: int
    n_parameters: int
    input_name: str
    height: int
    width: int
    mode: Literal["RGB", "L", "RGBA"]
    resize_approach: Literal["resize", "randomcrop", "centercrop"]
    max_pixels: int
    max_bytes: int
    mean: list[float]
    std: list[float]
    output_name: str
    max_length: int | None
    most_tokens: int
    vocabulary: int
    n_layers: int
    n_heads: int
    head_width: int
    n_places: int
    tokenizer_digest: str
    decoding: dict[str, Any] = field(default_factory=dict)

    @property
    def decoding_defaults(self) -> dict[str, Any]:
        """Return the settings in place of those of `Decoding`."""
        return ({} if self.max_length is None else {"max_length": self.max_length}) | self.decoding

    @property
    def spec(self) -> ImageSpec:
        """Return how files become pixels."""
        return ImageSpec(self.height, self.width, self.mode, self.resize_approach, self.max_pixels, self.max_bytes)

    @property
    def kept(self) -> list[str]:
        """Return what the decoder's layers keep of a token."""
        return [f"{layer}.{kind}" for layer in range(self.n_layers) for kind in ("key", "value")]


def read_facts(folder: OnnxFolder) -> OnnxFacts:
    """Return what an export says of itself. Raises RunError if it is not an export's configuration."""
    data = read_json(folder.config)
    try:
        facts = TypeAdapter(OnnxFacts).validate_json(json.dumps(data[SECTION]), strict=True)
    except (TypeError, KeyError, AttributeError, ValidationError) as error:
        found = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(map(str, found["loc"])) or SECTION
        raise RunError(f"{folder.config}: not the configuration of an export: {where}: {found['msg']}") from error
    most = dict.fromkeys(("most_tokens", "vocabulary", "n_layers", "n_heads", "head_width", "n_places"), MOST)
    most |= dict.fromkeys(("height", "width"), MOST_SIDE) | {"max_pixels": 10**10, "max_bytes": 10**12}
    most |= {} if facts.max_length is None else {"max_length": facts.most_tokens + 1}
    for name, highest in most.items():
        if not 1 <= getattr(facts, name) <= highest:
            value = shown(str(getattr(facts, name)))
            raise RunError(f"{folder.config}: {name}: expected 1 to {highest:,}, found {value}")
    try:
        Decoding.check_defaults(facts.decoding_defaults)
    except ConfigError as error:
        raise RunError(f"{folder.config}: decoding: {error}") from error
    n_channels = facts.spec.stored_shape[2]
    if not (
        len(facts.mean) == len(facts.std) == n_channels
        and all(value > 0 for value in facts.std)
        and all(map(math.isfinite, (*facts.mean, *facts.std)))
    ):
        raise RunError(
            f"{folder.config}: mean, std: expected {n_channels} values each, std above 0; found {shown(str(facts.mean))}, {shown(str(facts.std))}"
        )
    return facts


def read_signed(folder: OnnxFolder, path: Path) -> bytes:
    """Return a file's bytes. Raises RunError if it cannot be read, or changed since it was written."""
    name = path.relative_to(folder.path).as_posix()
    digests = digests_of(folder)
    try:
        data = regular(path).read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != digests.get(name):
        raise RunError(
            f"{path}: changed since it was written (SHA-256 differs from that in {folder.export.name}): export again"
        )
    return data


def digests_of(folder: OnnxFolder) -> dict[str, Any]:
    written = read_json(folder.export)
    digests = written.get("sha256") if isinstance(written, dict) else None
    if not isinstance(digests, dict):
        raise RunError(f"{folder.export}: expected sha256 of each file, found {type(digests).__name__}")
    if (found := written.get("format")) != FORMAT_VERSION:
        raise RunError(
            f"{folder.export}: expected format {FORMAT_VERSION}, found {shown(found)}: written by another img2seq"
        )
    return digests


def read_onnx_tokenizer(folder: OnnxFolder, facts: OnnxFacts) -> Tokenizer:
    """Return the tokenizer. Raises RunError if it is not the one that the model was trained with."""
    texts = []
    for path in (folder.tokenizer, folder.tokenizer_config):
        try:
            texts.append(read_signed(folder, path).decode())
        except UnicodeDecodeError as error:
            raise RunError(f"{path}: expected UTF-8 text: {error.reason}") from error
    try:
        tokenizer = from_tokenizers(texts[0], texts[1], folder.path)
    except DataError as error:
        raise RunError(f"{folder.tokenizer}: {error}") from error
    if tokenizer.digest != facts.tokenizer_digest:
        raise RunError(f"{folder.tokenizer}: not the tokenizer this model was trained with; restore the file")
    return tokenizer
