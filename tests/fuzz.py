"""Mutated inputs by the thousand: `python tests/fuzz.py --count 20000`. Each ends in a result or in one Img2SeqError.

Image files (JPEG, PNG, WebP, GIF, TIFF, BMP, HEIC, AVIF), captions (CSV, Excel, tar, Parquet, JSON and others), tokenizers and score files (JSON), configurations (YAML)
and headers of safetensors are changed at random: bytes flipped, cut out, repeated, numbers replaced by extreme ones, parts
of two files joined. Input n depends on n and the seed alone. They are run in child processes with a limit on memory; an
input that takes longer than TIME_LIMIT_S, grows the process by more than GROWTH_MB, raises anything but Img2SeqError or
kills its process is a fault: it is kept in --keep and named at the end. Exit code 1 where there is one.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import multiprocessing
import resource
import signal
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image

from img2seq.config.load import load_config
from img2seq.config.show import to_yaml
from img2seq.config.yaml_reader import parse_yaml
from img2seq.data.image import ImageSpec, decode, from_any, opened
from img2seq.data.picture import picture_bytes
from img2seq.data.seeds import generator
from img2seq.data.sources.read import read_captions
from img2seq.data.text import clean_caption
from img2seq.data.tokenizer import Tokenizer
from img2seq.data.vocabulary import from_vocab_file, learn_bpe, learn_words
from img2seq.errors import Img2SeqError
from img2seq.metrics.formats import read_references, read_results
from img2seq.model.foreign_weights import read_any_shapes as read_shapes
from img2seq.model.foreign_weights import read_any_tensors as read_tensors

TIME_LIMIT_S = 10
MAX_PIXELS = 10_000_000
GROWTH_MB = (
    600  # an image of the most pixels takes 40 MB in memory, and is decoded, turned, laid over white and resized
)
ADDRESS_SPACE_GB = 12
CHILD_INPUTS = 500
EXPERIMENT = Path(__file__).parents[1] / "examples/flickr8k/experiment.yaml"


# --- what is mutated


def _image(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture = Image.effect_mandelbrot((120, 90), (-2, -1, 1, 1), 40).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(buffer, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}), **options)
    return buffer.getvalue()


def _animation(kind: str) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.effect_noise((40, 30), 50).convert("P") for _ in range(3)]
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def _table() -> bytes:
    text = io.StringIO(newline="")
    rows = [
        ("ID", "Sequence"),
        ("1", "A dog runs ."),
        ("1.jpg", 'a "quoted", dog'),
        ("é", "un café\u2028à midi"),
        ("x", "two\nlines, of a dog"),
    ]
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _safetensors() -> bytes:
    header = {"a": ("F32", [2, 3], [0, 24]), "b.weight": ("F16", [4], [24, 32]), "c": ("I64", [], [32, 40])}
    text = json.dumps({k: {"dtype": d, "shape": s, "data_offsets": o} for k, (d, s, o) in header.items()}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(40)


def _jsons() -> list[bytes]:
    results = [{"image_id": 1, "caption": "a dog"}, {"image_id": "two", "caption": "a \ud83d\ude00 cat"}]
    annotations = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"image_id": 1, "caption": "a dog"}]}
    captions = ["a dog runs", "a dog sleeps", "the dog"]
    tokenizers = [learn_words(captions, split_on=" ", min_freq=1), learn_bpe(captions, max_units=270)]
    contents: list[Any] = [results, annotations, {"1": ["a dog", "the dog"]}, {"a": 5, "dog": 6}]
    karpathy = {
        "images": [
            {"filename": "1.jpg", "filepath": "a", "cocoid": 1, "split": "test", "sentences": [{"raw": "a dog"}]}
        ]
    }
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "a dog"}]
    contents += [
        karpathy,
        [{"image": "1.jpg", "caption": ["a dog", "x"]}],
        [{"image": "1.jpg", "conversations": turns}],
    ]
    return [*(json.dumps(content).encode() for content in contents), *(t.to_json().encode() for t in tokenizers)]


def _sources() -> list[bytes]:
    """Return captions in the formats that are neither a CSV table nor one JSON value, with pictures in those that hold them."""
    import openpyxl
    import pyarrow as pa
    import pyarrow.parquet as pq

    picture = _image("JPEG")[:4000]
    tar, parquet, book = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, data in (
            ("a.jpg", picture),
            ("a.json", b'{"captions": ["a dog", "two"]}'),
            ("b.png", b"x"),
            ("b.txt", b"a cat\n"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    rows = [
        {"image": {"bytes": picture, "path": f"{n}.jpg"}, "caption": ["a dog", "a cat"], "split": "train"}
        for n in range(3)
    ]
    pq.write_table(pa.Table.from_pylist(rows), parquet, row_group_size=2)
    workbook = openpyxl.Workbook()
    assert workbook.active is not None
    workbook.active.append(["ID", "Sequence"])
    workbook.active.append([7, "a dog"])
    workbook.save(book)
    lines = [{"image": "a.jpg", "captions": ["a dog"], "split": "val"}, {"file_name": "b.jpg", "text": "a cat"}]
    return [
        tar.getvalue(), parquet.getvalue(), book.getvalue(),
        "\n".join(map(json.dumps, lines)).encode(),
        b"a.jpg#0\ta dog\na.jpg#1\ttwo dogs\n",
        "filename;description;split\na.jpg;un café;train\nb.jpg;deux;test\n".encode("cp1252"),
        "image|caption\na.jpg|a dog\n".encode("utf-16"),
    ]  # fmt: skip


def seeds() -> dict[str, list[bytes]]:
    """Return the files that are mutated, by what they are."""
    images = [
        _image("JPEG"),
        _image("JPEG", progressive=True),
        _image("PNG"),
        _image("WEBP"),
        _image("WEBP", lossless=True),
    ]
    images += [
        _image("GIF"),
        _animation("GIF"),
        _animation("WEBP"),
        _image("TIFF", compression="tiff_lzw"),
        _image("BMP"),
    ]
    with suppress(ImportError, KeyError):
        import pillow_heif

        pillow_heif.register_heif_opener()
        images += [_image("HEIF"), _image("AVIF")]
    return {
        "image": images,
        "source": _sources(),
        "csv": [_table()],
        "json": _jsons(),
        "yaml": [EXPERIMENT.read_bytes()],
        "safetensors": [_safetensors()],
    }


SHARE = {"image": 0.4, "source": 0.2, "csv": 0.1, "json": 0.15, "yaml": 0.1, "safetensors": 0.05}
EXTREMES = [b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\xff" * 8, b"\x80\0\0\0", b"-1", b"1e999", b"99999999999999999999",
            b"null", b'"', b"\n", b",", b":", b"[", b"{", b"\\ud800", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"..", b"&a", b"*a", b"!!x"]  # fmt: skip


def mutated(number: int, seed: int, files: dict[str, list[bytes]]) -> tuple[str, bytes]:
    """Return the kind and the bytes of an input: a function of its number and the seed alone."""
    rng = generator("fuzz", seed, number)
    kind = str(rng.choice(list(SHARE), p=list(SHARE.values())))
    data = bytearray(files[kind][int(rng.integers(len(files[kind])))])
    for _ in range(min(5, int(rng.geometric(0.6)))):
        _mutate(data, rng, files[kind])
    return kind, bytes(data)


def _mutate(data: bytearray, rng: np.random.Generator, others: list[bytes]) -> None:
    size = len(data)
    at = (
        int(rng.integers(size + 1)) if rng.random() < 0.6 else int(rng.integers(min(size, 64) + 1))
    )  # headers matter most
    length = int(rng.integers(1, 1 + max(1, int(size * rng.random() ** 4))))
    extreme = EXTREMES[int(rng.integers(len(EXTREMES)))]
    match int(rng.integers(7)):
        case 0 if size:
            data[at % size] ^= 1 << int(rng.integers(8))
        case 1:
            data[at : at + length] = rng.bytes(min(length, 64))
        case 2:
            del data[at : at + length]
        case 3:
            data[at:at] = data[at : at + length] * int(rng.integers(1, 4))
        case 4:
            data[at : at + len(extreme)] = extreme
        case 5:
            data[at:at] = extreme
        case _:
            other = others[int(rng.integers(len(others)))]
            data[at:] = other[int(rng.integers(len(other))) :]


# --- what they are given to


def _use_image(path: Path, data: bytes) -> None:
    for spec in (
        ImageSpec(32, 24, max_pixels=MAX_PIXELS),
        ImageSpec(16, 16, mode="RGBA", resize_approach="centercrop", max_pixels=MAX_PIXELS),
    ):
        assert decode(data, spec, "x").shape == spec.stored_shape
    from_any(path, ImageSpec(8, 8, max_pixels=MAX_PIXELS))
    with opened(data, "x") as image:
        assert image.size


def _use_csv(path: Path, data: bytes) -> None:
    found = read_captions(path)
    assert all(clean_caption(text).strip() == text for texts in found.captions.values() for text in texts)
    json.dumps(found.captions, ensure_ascii=False).encode()
    read_references(path)


def _use_source(path: Path, data: bytes) -> None:
    spec = ImageSpec(8, 8, max_bytes=1_000_000)
    errors: list[Img2SeqError] = []
    for needed in (True, False):
        try:
            found = read_captions(path, captions_needed=needed)
        except Img2SeqError as error:
            errors.append(error)
            continue
        assert found.summary
        json.dumps(found.captions, ensure_ascii=False).encode()
        for picture in found.pictures.values():
            with suppress(Img2SeqError):
                picture_bytes(picture, spec)
    if len(errors) == 2:
        raise errors[0]


def _use_json(path: Path, data: bytes) -> None:
    readers: list[Callable[[], object]] = [
        lambda: read_results(path),
        lambda: read_captions(path),
        lambda: read_references(path),
        lambda: from_vocab_file(path, split_on=" ", lowercase=False).to_json().encode(),
        lambda: Tokenizer.from_json(data.decode("utf-8", "replace")).encode("a dog runs <eos> é"),
    ]
    errors: list[Img2SeqError] = []
    for reader in readers:  # of one file at most some can be right
        try:
            reader()
        except Img2SeqError as error:
            errors.append(error)
    if len(errors) == len(readers):
        raise errors[0]


def _use_yaml(path: Path, data: bytes) -> None:
    experiment = load_config(path)
    text = to_yaml(experiment)
    path.write_text(text, encoding="utf-8")
    assert load_config(path) == experiment
    parse_yaml(text, "x")


def _use_safetensors(path: Path, data: bytes) -> None:
    assert {name: tuple(tensor.shape) for name, tensor in read_tensors(path).items()} == read_shapes(path)


USES: dict[str, tuple[str, Callable[[Path, bytes], None]]] = {
    "image": ("jpg", _use_image),
    "source": ("data", _use_source),
    "csv": ("csv", _use_csv),
    "json": ("json", _use_json),
    "yaml": ("yaml", _use_yaml),
    "safetensors": ("safetensors", _use_safetensors),
}


# --- running them


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"took longer than {TIME_LIMIT_S} s")


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss begins with that of the parent
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_range(first: int, last: int, seed: int, folder: Path, connection: Any) -> None:
    """Run inputs first .. last - 1 in this process; send (number, kind, outcome, seconds, peak in MB) of each."""
    limit = ADDRESS_SPACE_GB * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, _too_long)
    warnings.simplefilter("ignore")
    files = seeds()
    use_all_once(files, folder)
    start_mb = _peak_mb()
    for number in range(first, last):
        kind, data = mutated(number, seed, files)
        ending, use = USES[kind]
        path = folder / f"input.{ending}"
        path.write_bytes(data)
        connection.send((number, kind, "began", 0.0, 0.0))
        begun = time.perf_counter()
        signal.alarm(TIME_LIMIT_S)
        try:
            use(path, data)
            outcome = "used"
        except Img2SeqError as error:
            outcome = "refused" if str(error) else "fault: an error that says nothing"
        except BaseException as error:  # a panic of a library written in Rust is no Exception
            outcome = f"fault: {type(error).__name__}: {error}\n{traceback.format_exc()}"
        signal.alarm(0)
        grown = _peak_mb() - start_mb
        if grown > GROWTH_MB and not outcome.startswith("fault"):
            outcome = f"fault: the process grew by {grown:.0f} MB"
            start_mb = _peak_mb()
        connection.send((number, kind, outcome, time.perf_counter() - begun, grown))
    connection.close()


def use_all_once(files: dict[str, list[bytes]], folder: Path) -> None:
    """Use every file as it is: what is imported and allocated once is not the fault of the first mutated one."""
    for kind, contents in files.items():
        ending, use = USES[kind]
        for data in contents:
            path = folder / f"whole.{ending}"
            path.write_bytes(data)
            use(path, data)


def main() -> int:
    """Run the inputs asked for, print one line of figures and every fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--count", type=int, default=20_000, help="how many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for inputs that are faults")
    arguments = parser.parse_args()
    kind = "fork" if sys.platform == "linux" else "spawn"  # forked, it need not import torch again
    context: Any = multiprocessing.get_context(kind)
    outcomes: Counter[tuple[str, str]] = Counter()
    faults: list[tuple[int, str, str]] = []
    slowest, grown, end = 0.0, 0.0, arguments.first + arguments.count
    begun, first = time.perf_counter(), arguments.first
    with tempfile.TemporaryDirectory() as folder:
        while first < end:
            last = min(end, first + CHILD_INPUTS)
            here, there = context.Pipe(duplex=False)
            child = context.Process(target=run_range, args=(first, last, arguments.seed, Path(folder), there))
            child.start()
            there.close()
            number, kind = first - 1, ""
            while True:
                try:
                    if not here.poll(TIME_LIMIT_S * 3 + 30):  # the alarm did not reach it: it hangs in a library
                        child.kill()
                        raise EOFError
                    number, kind, outcome, seconds, megabytes = here.recv()
                except EOFError:
                    break
                if outcome == "began":
                    continue
                slowest, grown = max(slowest, seconds), max(grown, megabytes)
                outcomes[kind, outcome.partition(":")[0]] += 1
                if outcome.startswith("fault"):
                    faults.append((number, kind, outcome))
                first = number + 1
            child.join()
            if first < last:
                outcomes[kind, "fault"] += 1
                faults.append((number, kind, f"fault: the process died with {child.exitcode}"))
                first = number + 1
    for number, kind, outcome in faults:
        print(f"input {number} ({kind}): {outcome}")
        if arguments.keep:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            content = mutated(number, arguments.seed, seeds())[1]
            (arguments.keep / f"{number}.{USES[kind][0]}").write_bytes(content)
    by_kind = "; ".join(
        f"{kind} {outcomes[kind, 'used']:,} used, {outcomes[kind, 'refused']:,} refused" for kind in USES
    )
    print(
        f"{sum(outcomes.values()):,} inputs from {arguments.first:,} (seed {arguments.seed}): {len(faults)} faults; {by_kind}; "
        f"slowest {slowest:.2f} s, memory grew by at most {grown:.0f} MB, {time.perf_counter() - begun:.0f} s in all"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
